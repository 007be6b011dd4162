"""A network's weights in an .npz file, named by their paths in the network, or from PyTorch."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax._checks import check_type, describe_value
from convjax._warnings import warn_user
from convjax.io.atomic import atomic_write
from convjax.io.npz import Arrays, NpzError, read_npz
from convjax.nn.kernel_order import AXES_KEY, FILE_AXES, from_unnamed_order
from convjax.nn.layers import Conv
from convjax.nn.residual import ResNet
from convjax.ops.layout import KERNEL_AXES

# Names of arrays in one error message.
MAX_NAMES = 5

# PyTorch's names of variables.
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# It counts the batches for an average that convjax does not have.
_TORCH_COUNTER = "num_batches_tracked"

_TORCHVISION_WORDS = {"conv": "conv", "norm": "bn"}

# The modules of `ResNet` by torchvision's names; stages and convolutions are counted from 1 there.
_TORCHVISION = (
    (r"stem\.conv", lambda m: "conv1"),
    (r"stem\.norm", lambda m: "bn1"),
    (
        r"stages\.(\d+)\.(\d+)\.layers\.(\d+)\.(conv|norm)",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.{_TORCHVISION_WORDS[m[4]]}{int(m[3]) + 1}",
    ),
    (
        r"stages\.(\d+)\.(\d+)\.projection\.(conv|norm)",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.{'01'[m[3] == 'norm']}",
    ),
    (r"head", lambda m: "fc"),
)

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
    copy = nnx.clone(model)
    targets = {n: _Target(leaf, tuple(range(leaf.ndim))) for n, leaf in _weights(copy).items()}

    def check(declared: Arrays) -> None:
        arrays = {name: array for name, array in declared.items() if name != AXES_KEY}
        sizes = {name: target.leaf.size for name, target in targets.items()}
        # Without the key the axes may have another order, see `_of_no_order`.
        if AXES_KEY in declared or {name: a.size for name, a in arrays.items()} != sizes:
            _compare(targets, arrays, str(path))

    try:
        found = read_npz(path, check=check)
    except NpzError as error:
        raise WeightsError(
            f"{path} is not a complete weights file: {error}. Use another copy of it, or train "
            "again."
        ) from error
    axes = found.pop(AXES_KEY, None)
    if axes is not None and axes.tolist() != FILE_AXES:
        raise WeightsError(
            f"{path} has kernels of the axes {axes.tolist()!r}, and those of this version are "
            f"{FILE_AXES!r}. Load it with the version of convjax that wrote it."
        )
    if axes is None:
        found = _of_no_order(path, found, copy)
    _assign(targets, found, str(path))
    return copy


def load_torch_state(model: nnx.Module, state: Mapping[str, Any]) -> nnx.Module:
    """Returns a copy of a network with the weights of a PyTorch network, in the network's mode.

    A `convjax.ResNet` with projections takes the names of torchvision's: "layer1.0.conv1.weight",
    "layer2.0.downsample.0.weight", "bn1.running_mean", "fc.bias" and so on. Any other network takes
    its own paths with PyTorch's "weight", "running_mean" and "running_var" at their ends. PyTorch's
    kernels are OIHW, and the weights of its linear layers (outputs, inputs).

    Args:
      model: a network of the same structure, in any layout; it is not changed.
      state: the arrays by name, such as `network.state_dict()`, or the arrays of a file. PyTorch
        itself is not needed. Counters named "num_batches_tracked" are left out.

    Raises:
      WeightsError: if a name is missing or left over, or a shape or kind of numbers differs from
        that of the network.
      TypeError: if `model` is not a Flax NNX module, or `state` not a mapping.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html (`state_dict`);
      https://docs.pytorch.org/vision/stable/models/resnet.html.

    Examples:
      >>> import convjax, numpy as np
      >>> from flax import nnx
      >>> model = convjax.LinearNet((4, 2), rngs=nnx.Rngs(0))
      >>> state = {"layers.0.weight": np.ones((2, 4)), "layers.0.bias": np.zeros(2)}
      >>> loaded = convjax.weights.load_torch_state(model, state)
      >>> loaded(np.ones((1, 2, 2, 1), np.float32)).tolist()
      [[4.0, 4.0]]
    """
    check_type("model", model, nnx.Module, "Pass a network like the one whose state this is.")
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state must map names to arrays, got {describe_value(state)}. "
            "`state_dict()` of a PyTorch network does."
        )
    copy = nnx.clone(model)
    for place, layer in nnx.iter_modules(copy):
        if isinstance(layer, nnx.ConvTranspose) and not layer.transpose_kernel:
            raise WeightsError(
                f"model must have transposed convolutions with transpose_kernel=True, got "
                f"{'.'.join(map(str, place))} without it: it would not flip the kernel as PyTorch "
                "does, and compute something else."
            )
    wanted = {}
    for path, leaf in _weights(copy).items():
        module, _, name = path.rpartition(".")
        if name not in _TORCH_LEAVES:
            raise WeightsError(
                f"model must have no variables but {', '.join(_TORCH_LEAVES)}, whose names in "
                f"PyTorch are known, got {path}. Set the others by hand."
            )
        where = _torchvision_name(module) if isinstance(copy, ResNet) else module
        torch_name = f"{where}.{_TORCH_LEAVES[name]}" if where else _TORCH_LEAVES[name]
        # Axes O, I and the pixels' become the pixels', I and O.
        axes = (*range(2, leaf.ndim), 1, 0) if name == "kernel" else tuple(range(leaf.ndim))
        wanted[torch_name] = _Target(leaf, axes)
    found = {n: _as_array(n, x) for n, x in state.items() if n.split(".")[-1] != _TORCH_COUNTER}
    _assign(wanted, found, "state")
    return copy


class _Target(NamedTuple):
    """A variable, and for each of its axes that of the array to be assigned."""

    leaf: Any
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array to be assigned."""
        return tuple(self.leaf.shape[self.axes.index(i)] for i in range(self.leaf.ndim))


def _assign(wanted: Mapping[str, _Target], found: Mapping[str, Any], source: str) -> None:
    """Sets variables to arrays of the same names, after comparing names, shapes and kinds."""
    _compare(wanted, found, source)
    for name, (leaf, axes) in wanted.items():
        leaf.set_value(jnp.asarray(np.transpose(found[name], axes), leaf.dtype))


def _compare(wanted: Mapping[str, _Target], found: Mapping[str, Any], source: str) -> None:
    """Raises WeightsError if arrays have other names, shapes or kinds than variables."""
    if found.keys() != wanted.keys():
        parts = []
        for what, arrays, others in (("without", wanted, found), ("with", found, wanted)):
            names = sorted(arrays.keys() - others)
            shown = [f"{name} {tuple(arrays[name].shape)}" for name in names[:MAX_NAMES]]
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            parts += [f"{what} {', '.join(shown)}{more}"] if names else []
        raise WeightsError(f"{source} contains the weights of another network: {'; '.join(parts)}.")
    for name, target in wanted.items():
        array = found[name]
        if array.shape != target.shape:
            raise WeightsError(
                f"{source} contains {name} of shape {array.shape}, but the network's has the "
                f"shape {target.shape}."
            )
        if array.dtype.kind not in _KINDS:
            raise WeightsError(
                f"{source} contains {name} of {array.dtype}, which are not real numbers."
            )


def _torchvision_name(path: str) -> str:
    """Returns torchvision's name of a module of `ResNet`."""
    for pattern, name in _TORCHVISION:
        if match := re.fullmatch(pattern, path):
            return name(match)
    raise AssertionError(path)  # a module that ResNet does not have


def _as_array(name: str, value: Any) -> Any:
    """Returns an array, or a tensor of PyTorch, as an array of NumPy."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"state contains {name}, which NumPy cannot read: {error}. With PyTorch, "
            "`tensor.detach().cpu().float()` can be read."
        ) from error


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
