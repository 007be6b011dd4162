"""A network's weights in an .npz file, named by their paths in the network."""

import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax._checks import check_type
from convjax._warnings import warn_user
from convjax.io.atomic import atomic_write
from convjax.io.npz import Arrays, NpzError, read_npz
from convjax.nn.kernel_order import AXES_KEY, FILE_AXES, from_unnamed_order
from convjax.nn.layers import Conv
from convjax.ops.layout import KERNEL_AXES

# Names of arrays in one error message.
MAX_NAMES = 5

# NumPy's kinds of booleans, integers and real numbers.
_KINDS = "biuf"


class WeightsError(ValueError):
    """Raised for a file that does not contain the weights of the network."""


def save_weights(path: str | os.PathLike[str], model: nnx.Module) -> None:
    """Writes parameters and running statistics to an .npz file, atomically.

    Each array is named by its path in the network, such as "blocks.0.conv.kernel". Kernels are HWIO
    in every layout, and the array "kernel_axes" says so. A dtype that NumPy does not have
    (bfloat16) becomes float32. The state of random number generators is not saved.

    Args:
      path: of the file, which is replaced if it exists.
      model: the network.

    Raises:
      OSError: if the file cannot be written.
      TypeError: if `model` is not a Flax NNX module.

    Examples:
      >>> import convjax, pathlib, tempfile
      >>> from flax import nnx
      >>> trained, fresh = (convjax.LinearNet((4, 2), rngs=nnx.Rngs(seed)) for seed in (0, 1))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "model.npz"
      ...     convjax.weights.save_weights(path, trained)
      ...     loaded = convjax.weights.load_weights(path, fresh)
      >>> bool((loaded.layers[0].kernel[...] == trained.layers[0].kernel[...]).all())
      True
    """
    check_type("model", model, nnx.Module, "Trainer.model(state) returns one.")
    arrays: dict[str, Any] = {AXES_KEY: np.array(FILE_AXES)}
    for name, leaf in _weights(model).items():
        array = np.asarray(leaf[...])
        # NumPy knows the types that JAX adds to its own as structureless bytes.
        arrays[name] = array.astype(np.float32) if array.dtype.kind == "V" else array
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def load_weights(path: str | os.PathLike[str], model: nnx.Module) -> nnx.Module:
    """Returns a copy of a network with the weights of a file, in the network's mode.

    Nothing in the file is executed. The dtypes are those of `model`, and so is the layout: weights
    of a network in one layout are those of the same network in another.

    Files of convjax 0.1 do not name the order of the kernels' axes. It is that of the network's
    layout if the shapes fit, and otherwise that of the layout whose shapes fit; where several do,
    a warning says which was taken.

    Args:
      path: of a file that `save_weights` wrote.
      model: a network of the same structure; it is not changed.

    Raises:
      FileNotFoundError: if there is no such file.
      WeightsError: if the file is damaged, or its names, shapes or kinds of numbers differ from
        those of the network.
      TypeError: if `model` is not a Flax NNX module, or `path` not a path.

    Examples:
      >>> import convjax, pathlib, tempfile
      >>> from flax import nnx
      >>> model = convjax.LinearNet((4, 2), rngs=nnx.Rngs(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "model.npz"
      ...     convjax.weights.save_weights(path, model)
      ...     try:
      ...         convjax.weights.load_weights(path, convjax.LinearNet((4, 3), rngs=nnx.Rngs(0)))
      ...     except convjax.weights.WeightsError as error:
      ...         "of shape (2,), but the network's has the shape (3,)" in str(error)
      True
    """
    check_type("model", model, nnx.Module, "Pass a network like the one that was saved.")
    try:
        found = read_npz(path)
    except NpzError as error:
        raise WeightsError(
            f"{path} is not a complete weights file: {error}. Use another copy of it, or train "
            "again."
        ) from error
    copy = nnx.clone(model)
    wanted = _weights(copy)
    axes = found.pop(AXES_KEY, None)
    if axes is not None and axes.tolist() != FILE_AXES:
        raise WeightsError(
            f"{path} has kernels of the axes {axes.tolist()!r}, and those of this version are "
            f"{FILE_AXES!r}. Load it with the version of convjax that wrote it."
        )
    if axes is None:
        found = _of_no_order(path, found, copy)
    if found.keys() != wanted.keys():
        missing, other = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
        raise WeightsError(
            f"{path} contains the weights of another network: "
            + "; ".join(
                f"{what} {', '.join(names[:MAX_NAMES])}{' …' if len(names) > MAX_NAMES else ''}"
                for what, names in (("without", missing), ("with", other))
                if names
            )
            + "."
        )
    for name, leaf in wanted.items():
        if found[name].shape != leaf.shape:
            raise WeightsError(
                f"{path} contains {name} of shape {found[name].shape}, but the network's has the "
                f"shape {leaf.shape}."
            )
        if found[name].dtype.kind not in _KINDS:
            raise WeightsError(
                f"{path} contains {name} of {found[name].dtype}, which are not real numbers."
            )
        leaf.set_value(jnp.asarray(found[name], leaf.dtype))
    return copy


def _of_no_order(path: str | os.PathLike[str], found: Arrays, model: nnx.Module) -> dict[str, Any]:
    """Returns the arrays of a file of convjax 0.1, whose kernels have the order of some layout."""
    convs = {
        ".".join(map(str, (*where, "kernel"))): module
        for where, module in nnx.iter_modules(model)
        if isinstance(module, Conv)
    }
    if not convs:
        return found
    own = next(iter(convs.values())).layout
    layouts = dict.fromkeys((own, *KERNEL_AXES))
    shapes = {name: conv.kernel.shape for name, conv in convs.items()}
    arrays, fitting = from_unnamed_order(found, shapes, tuple(layouts))
    if len(fitting) > 1 and shapes.keys() <= found.keys():
        warn_user(
            f"{path} was written by convjax 0.1 and does not name the order of its kernels' axes, "
            f"whose shapes fit the layouts {', '.join(fitting)}. They are taken for those of "
            f"{fitting[0]}, the layout of the network. Give the network the layout that the file "
            "was written with: CHWN on CPU and NHWC elsewhere, unless it was chosen."
        )
    return arrays


def _weights(model: nnx.Module) -> dict[str, Any]:
    return {
        ".".join(map(str, path)): leaf
        for path, leaf in nnx.to_flat_state(nnx.state(model))
        if not isinstance(leaf, nnx.RngState)
    }
