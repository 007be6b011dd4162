"""Exact counts of small whole numbers, by rows, by adding or by comparing."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, Shaped

# The most codes whose pairs are counted together: the table of 64 x 64 counts of a row, 16 KiB,
# stays in the first cache of a core.
PAIRED_CODES = 64

# The fewest numbers in a row that are counted in pairs; below, the table costs more than it saves.
PAIRED_SIZE = 2**13


def count_rows(
    index: Int[Array, "K ..."], bins: int, rows: Int[np.ndarray, " K"] | None = None
) -> Int[Array, "R bins"]:
    """Returns how often each of 0 … bins − 1 occurs in each row; `bins` itself is not counted.

    The form is that for a CPU: a scatter-add, which runs in one thread beside the products of the
    backward pass; comparing with every bin took longer than the rest of the step. GPU and TPU,
    where a scatter-add would serialise on the few addresses where most activations lie, compare in
    forms of their own (`convjax.stats.forms`). So does an array of explicit sharding, whose axes a
    scatter-add refuses.

    Args:
      index: numbers from 0 to bins.
      bins: the number of different numbers that are counted.
      rows: the row to which each entry of the first axis belongs, ascending from 0; by default each
        is a row of its own.

    Examples:
      >>> import jax.numpy as jnp, numpy as np
      >>> from convjax.stats.counting import count_rows
      >>> index = jnp.array([[0, 1, 1], [2, 1, 0]])
      >>> count_rows(index, 2).tolist(), count_rows(index, 2, np.array([0, 0])).tolist()
      ([[1, 2], [1, 1]], [[2, 3]])
    """
    count = count_by_comparing if explicitly_sharded(index) else count_by_adding
    return count(index, bins, rows)


def count_by_comparing(
    index: Int[Array, "K ..."], bins: int, rows: Int[np.ndarray, " K"] | None = None
) -> Int[Array, "R bins"]:
    """`count_rows` by comparisons with every number."""
    axes = tuple(range(1, index.ndim))
    counts = jnp.sum(index[..., None] == jnp.arange(bins), axes, dtype=jnp.int32)
    return counts if rows is None else sum_rows(counts, rows)


def count_by_adding(
    index: Int[Array, "K ..."], bins: int, rows: Int[np.ndarray, " K"] | None
) -> Int[Array, "R bins"]:
    """`count_rows` by adding ones at the numbers.

    Of long rows two neighbours are counted at once, in a table of all pairs, which takes half the
    time.
    """
    rows = np.arange(len(index)) if rows is None else rows
    number, codes = int(rows[-1]) + 1, bins + 1
    index = index.reshape(len(index), -1)
    if codes > PAIRED_CODES or index.size < PAIRED_SIZE * number:
        return _added(index, codes, rows)[:, :bins]
    if index.shape[1] % 2:
        index = jnp.pad(index, ((0, 0), (0, 1)), constant_values=bins)
    pairs = index.reshape(len(index), -1, 2)
    table = _added(pairs[..., 0] * codes + pairs[..., 1], codes**2, rows)
    table = table.reshape(number, codes, codes)
    # One sum of both tables has fewer operations than two sums.
    return jnp.sum(table + table.mT, 1, dtype=jnp.int32)[:, :bins]


def sum_rows(x: Shaped[Array, "K ..."], rows: Int[np.ndarray, " K"]) -> Shaped[Array, "R ..."]:
    """Returns the sums of the entries of each row.

    Args:
      x: the entries.
      rows: the row of each, ascending from 0.
    """
    return jax.ops.segment_sum(x, rows, int(rows[-1]) + 1, indices_are_sorted=True)


def _added(
    index: Int[Array, "K N"], codes: int, rows: Int[np.ndarray, " K"]
) -> Int[Array, "R codes"]:
    number = int(rows[-1]) + 1
    if number > 1:
        index = index + jnp.asarray(codes * rows, index.dtype)[:, None]
    # Unsigned, since JAX would otherwise look for negative indices, which count from the end.
    counts = jnp.zeros(number * codes, jnp.int32).at[index.reshape(-1).astype(jnp.uint32)]
    return counts.add(1, mode="promise_in_bounds").reshape(number, codes)


def explicitly_sharded(x: Array) -> bool:
    """Returns whether an axis of an array is split over a mesh axis of `AxisType.Explicit`.

    Such axes cannot be merged by a reshape.
    """
    return any(part is not None for part in jax.typeof(x).sharding.spec)


def replicated(x: Array) -> Array:
    """Returns an array with no axis split over a mesh axis of `AxisType.Explicit`."""
    return jax.sharding.reshard(x, PartitionSpec()) if explicitly_sharded(x) else x
