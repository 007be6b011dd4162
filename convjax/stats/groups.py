"""Arrays of one type are stacked, so that few operations treat all of them.

An operation for each of hundreds of layers would take longer to compile than the network.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

# Arrays of more elements are not stacked. The copy and the loss of their parallel treatment then
# cost more time per step than compilation saves.
STACKED_SIZE = 2**18


def groups_of(
    arrays: Sequence[Shaped[Array, "..."]], keys: Sequence[Hashable] | None = None
) -> list[list[int]]:
    """Returns the positions of arrays that can be stacked: those of one type and key.

    The type has the shape, the dtype and, within a mesh, the sharding.

    Args:
      arrays: any.
      keys: one per array; by default all are the same.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, x in enumerate(arrays):
        alone = i if x.size > STACKED_SIZE else None
        key = (jax.typeof(x), keys[i] if keys else None, alone)
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def stacked(arrays: Sequence[Shaped[Array, "..."]], group: Sequence[int]) -> Shaped[Array, "R ..."]:
    """Returns the arrays of a group as rows of one array."""
    if len(group) == 1:
        return arrays[group[0]][None]
    return jnp.stack([arrays[i] for i in group])


def in_order(groups: Sequence[Sequence[int]], results: Sequence[Any]) -> Any:
    """Returns one tree of the trees that groups resulted in, with rows in the order of the arrays.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.stats.groups import groups_of, in_order, stacked
      >>> arrays = [jnp.ones(2), jnp.ones(3), 5 * jnp.ones(2)]
      >>> groups = groups_of(arrays)
      >>> groups
      [[0, 2], [1]]
      >>> in_order(groups, [stacked(arrays, group).sum(1) for group in groups]).tolist()
      [2.0, 3.0, 10.0]
    """
    if len(results) == 1:
        return results[0]
    order = np.argsort(np.concatenate(groups))
    return jax.tree.map(lambda *rows: _ordered(jnp.concatenate(rows), order), *results)


def joined(
    groups: Sequence[Sequence[int]],
    lengths: Sequence[int],
    results: Sequence[Shaped[Array, "R _"] | None],
) -> Shaped[Array, " N"] | None:
    """Returns the rows of groups, of different lengths, one after the other.

    Args:
      groups: of the positions of arrays.
      lengths: of the row of each array.
      results: the rows of each group; None for a group of length 0.
    """
    kept = [rows.reshape(-1) for rows in results if rows is not None]
    if not kept:
        return None
    starts = np.cumsum([0, *lengths])
    places = [np.arange(starts[i], starts[i + 1]) for group in groups for i in group]
    return _ordered(jnp.concatenate(kept), np.argsort(np.concatenate(places)))


def _ordered(rows: Shaped[Array, "N ..."], order: Int[np.ndarray, " N"]) -> Shaped[Array, "N ..."]:
    return rows if (order == np.arange(len(order))).all() else rows[order]
