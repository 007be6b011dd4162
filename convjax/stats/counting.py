"""Exact counts of small whole numbers, by rows, in the form that suits the backend."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int

# The most codes whose pairs are counted together: the table of 64 x 64 counts of a row, 16 KiB,
# stays in the first cache of a core.
PAIRED_CODES = 64

# The fewest numbers in a row that are counted in pairs; below, the table costs more than it saves.
PAIRED_SIZE = 2**13


def count_rows(index: Int[Array, "R ..."], bins: int) -> Int[Array, "R bins"]:
    """Returns how often each of 0 … bins − 1 occurs in each row; `bins` itself is not counted.

    The cheapest exact form depends on the backend. On CPU it is a scatter-add, which runs in one
    thread beside the products of the backward pass; comparing with every bin took longer than the
    rest of the step. Of long rows two neighbours are counted at once, in a table of all pairs,
    which takes half the time. Elsewhere, by reasoning and not yet by measurement, a scatter-add
    would serialise on the few addresses where most activations lie, and comparisons cost little.
    Comparisons also keep the axes of an array of explicit sharding, which a scatter-add refuses.

    Args:
      index: numbers from 0 to bins.
      bins: the number of different numbers that are counted.
    """
    if explicitly_sharded(index) or jax.default_backend() != "cpu":
        axes = tuple(range(1, index.ndim))
        return jnp.sum(index[..., None] == jnp.arange(bins), axes, dtype=jnp.int32)
    rows, codes = len(index), bins + 1
    index = index.reshape(rows, -1)
    size = index.shape[1]
    if codes > PAIRED_CODES or size < PAIRED_SIZE:
        return _added(index, codes)[:, :bins]
    if size % 2:
        index = jnp.pad(index, ((0, 0), (0, 1)), constant_values=bins)
    pairs = index.reshape(rows, -1, 2)
    table = _added(pairs[..., 0] * codes + pairs[..., 1], codes**2).reshape(rows, codes, codes)
    return (jnp.sum(table, 1) + jnp.sum(table, 2))[:, :bins]


def _added(index: Int[Array, "R N"], codes: int) -> Int[Array, "R codes"]:
    rows = len(index)
    if rows > 1:
        index = index + codes * jnp.arange(rows, dtype=index.dtype)[:, None]
    # Unsigned, since JAX would otherwise look for negative indices, which count from the end.
    counts = jnp.zeros(rows * codes, jnp.int32).at[index.reshape(-1).astype(jnp.uint32)]
    return counts.add(1, mode="promise_in_bounds").reshape(rows, codes)


def explicitly_sharded(x: Array) -> bool:
    """Returns whether an axis of an array is split over a mesh axis of `AxisType.Explicit`.

    Such axes cannot be merged by a reshape.
    """
    return any(part is not None for part in jax.typeof(x).sharding.spec)


def replicated(x: Array) -> Array:
    """Returns an array with no axis split over a mesh axis of `AxisType.Explicit`."""
    return jax.sharding.reshard(x, PartitionSpec()) if explicitly_sharded(x) else x
