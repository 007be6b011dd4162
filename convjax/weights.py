"""A network's weights in a file of arrays, by the names that the network gives them."""

import os
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax.files import replacing

# So many names of arrays tell enough of another network.
NAMED = 5


class WeightsError(ValueError):
    """A file does not hold the weights of the network."""


def save_weights(path: str | os.PathLike[str], model: nnx.Module) -> None:
    """Writes parameters and running statistics to an .npz file, atomically.

    Each array is named by its path in the network, such as "blocks.0.conv.kernel", and is float32
    where NumPy has no such type (bfloat16). The state of random number generators is left out.
    """
    arrays: dict[str, Any] = {}
    for name, leaf in _weights(model).items():
        array = np.asarray(leaf[...])
        # NumPy knows the types that JAX adds to its own as structureless bytes.
        arrays[name] = array.astype(np.float32) if array.dtype.kind == "V" else array
    with replacing(path) as file:
        np.savez(file, **arrays)


def load_weights(path: str | os.PathLike[str], model: nnx.Module) -> nnx.Module:
    """Returns a copy of a network with the weights of a file, in the network's mode.

    Nothing in the file is executed.

    Raises:
      FileNotFoundError: if there is no such file.
      WeightsError: if the file is damaged, or its names or shapes are not the network's.
    """
    found = _read(path)
    copy = nnx.clone(model)
    wanted = _weights(copy)
    if found.keys() != wanted.keys():
        missing, other = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
        raise WeightsError(
            f"{path} holds the weights of another network: "
            + "; ".join(
                f"{what} {', '.join(names[:NAMED])}{' …' if len(names) > NAMED else ''}"
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
        leaf.set_value(jnp.asarray(found[name], leaf.dtype))
    return copy


def _weights(model: nnx.Module) -> dict[str, Any]:
    return {
        ".".join(map(str, path)): leaf
        for path, leaf in nnx.to_flat_state(nnx.state(model))
        if not isinstance(leaf, nnx.RngState)
    }


def _read(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    try:
        # Opened here, because np.load leaves a damaged file open.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and KeyError all mean a damaged file
        # Not NumPy's own words, which advise to load what may be dangerous.
        raise WeightsError(
            f"{path} is not a whole file of weights ({type(error).__name__})."
        ) from error
