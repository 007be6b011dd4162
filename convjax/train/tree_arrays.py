"""The arrays of a tree by their paths, and a tree rebuilt from such arrays."""

import os
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax.io.npz import Arrays

# The most names of arrays in an error message.
MAX_NAMES = 3


class CheckpointError(ValueError):
    """Raised when a checkpoint cannot be read, is damaged, or is of another training."""


def arrays_by_path(tree: Any) -> Arrays:
    """Returns the arrays of a tree by their paths, such as ".params['blocks'][0]['kernel']".

    A key of a random number generator becomes its bits.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(_bits(leaf)) for path, leaf in leaves}


def checksums(arrays: Arrays) -> dict[str, int]:
    """Returns the CRC-32 of each array's bytes."""
    return {name: zlib.crc32(array.tobytes()) for name, array in arrays.items()}


def _bits(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def tree_from_arrays(like: Any, arrays: Arrays, path: str | os.PathLike[str]) -> Any:
    """Returns a tree of the same structure as `like`, filled with arrays on the host.

    Args:
      like: a tree of arrays.
      arrays: by their paths, as `arrays_by_path` returns them.
      path: the path of their checkpoint, for messages.

    Raises:
      CheckpointError: if their names, shapes or dtypes differ from those of `like`.
    """
    wanted = {name: (a.shape, a.dtype) for name, a in arrays_by_path(like).items()}
    found = {name: (a.shape, a.dtype) for name, a in arrays.items()}
    differing = sorted(n for n in wanted.keys() | found if wanted.get(n) != found.get(n))
    if differing:
        shown = ", ".join(
            f"{name} {_kind(found.get(name))}, not {_kind(wanted.get(name))}"
            for name in differing[:MAX_NAMES]
        )
        more = f" and {len(differing) - MAX_NAMES} more" if len(differing) > MAX_NAMES else ""
        raise CheckpointError(
            f"the checkpoint {path} is of another training: {shown}{more}. Remove it, or resume "
            "the run that it belongs to."
        )
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)

    def leaf(path: Any, old: Any) -> Any:
        new = arrays[jax.tree_util.keystr(path)]
        if _is_key(old):
            return jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(old))
        return new

    return jax.tree.unflatten(structure, [leaf(path, old) for path, old in leaves])


def _kind(array: tuple[Any, Any] | None) -> str:
    return "missing" if array is None else f"{array[1]} {array[0]}"
