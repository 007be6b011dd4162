"""A network's weights in a file of arrays, by the names that the network gives them."""

import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax._checks import check_type
from convjax.io.atomic import atomic_write
from convjax.io.npz import NpzError, read_npz

# So many names of arrays tell enough of another network.
MAX_NAMES = 5


# Booleans, integers and real numbers.
_KINDS = "biuf"


class WeightsError(ValueError):
    """A file does not hold the weights of the network."""


def save_weights(path: str | os.PathLike[str], model: nnx.Module) -> None:
    """Writes parameters and running statistics to an .npz file, atomically.

    Each array is named by its path in the network, such as "blocks.0.conv.kernel", and is float32
    where NumPy has no such type (bfloat16). The state of random number generators is left out.

    Raises:
      OSError: if the file cannot be written.
      TypeError: if model is no network of Flax NNX.
    """
    check_type("model", model, nnx.Module, "Trainer.model(state) returns one.")
    arrays: dict[str, Any] = {}
    for name, leaf in _weights(model).items():
        array = np.asarray(leaf[...])
        # NumPy knows the types that JAX adds to its own as structureless bytes.
        arrays[name] = array.astype(np.float32) if array.dtype.kind == "V" else array
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def load_weights(path: str | os.PathLike[str], model: nnx.Module) -> nnx.Module:
    """Returns a copy of a network with the weights of a file, in the network's mode.

    Nothing in the file is executed.

    Raises:
      FileNotFoundError: if there is no such file.
      WeightsError: if the file is damaged, or its names, shapes or kinds of numbers are not the
        network's.
      TypeError: if model is no network of Flax NNX, or path no path.
    """
    check_type("model", model, nnx.Module, "Such as the network that `save_weights` was given.")
    try:
        found = read_npz(path)
    except NpzError as error:
        raise WeightsError(
            f"{path} is not a whole file of weights: {error}. Take another copy of it, or train "
            "again."
        ) from error
    copy = nnx.clone(model)
    wanted = _weights(copy)
    if found.keys() != wanted.keys():
        missing, other = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
        raise WeightsError(
            f"{path} holds the weights of another network: "
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
                f"{path} holds {name} of shape {found[name].shape}, the network's has {leaf.shape}."
            )
        if found[name].dtype.kind not in _KINDS:
            raise WeightsError(f"{path} holds {name} of {found[name].dtype}, no real numbers.")
        leaf.set_value(jnp.asarray(found[name], leaf.dtype))
    return copy


def _weights(model: nnx.Module) -> dict[str, Any]:
    return {
        ".".join(map(str, path)): leaf
        for path, leaf in nnx.to_flat_state(nnx.state(model))
        if not isinstance(leaf, nnx.RngState)
    }
