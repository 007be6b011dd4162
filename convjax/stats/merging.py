"""Merging of statistics: those of several steps or of several parts of a batch become one."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Num

from convjax.stats.activations import ActivationStats


def merge_rows(
    stats: ActivationStats, values: Int[np.ndarray, "..."] | int, starts: Any
) -> ActivationStats:
    """Returns the statistics of groups of neighbouring rows, as if taken of all their values.

    Counts are exact, in 64 bits where 32 are too few. The other statistics are exact up to the
    rounding of float32.

    Args:
      stats: NumPy arrays whose first axis is the row: (R, …), hist (R, …, B), or None; active may
        be packed into bits.
      values: number of values of each row's statistics, in the shape of the mean or broadcast to
        it.
      starts: (G,) the first row of each group, from 0 up.

    Returns:
      The same with the first axis G.
    """
    values = np.broadcast_to(values, np.shape(stats.mean)).astype(np.int64)
    group_of = np.searchsorted(starts, np.arange(len(values)), side="right") - 1
    total = np.add.reduceat(values, starts)

    # Ten million steps of 10,000 values do not fit 32 bits; as long as they do, memory is halved.
    integer = count_dtype(total)

    def mean(column: Any) -> Any:
        return np.add.reduceat(values * np.asarray(column, np.float64), starts) / total

    def summed(column: Any) -> Any:
        return None if column is None else sum_of_rows(column, starts, integer)

    active: Any = stats.active
    if active is not None:
        active = np.bitwise_or.reduceat(active, starts)
    with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
        means = mean(stats.mean)
        squares = (values - 1) * np.asarray(stats.std, np.float64) ** 2
        squares += values * (stats.mean - means[group_of]) ** 2
        std = np.sqrt(np.add.reduceat(squares, starts) / np.maximum(total - 1, 1))
    return ActivationStats(
        mean=means.astype(np.float32),
        std=std.astype(np.float32),
        near_zero=mean(stats.near_zero).astype(np.float32),
        abs_near_zero=mean(stats.abs_near_zero).astype(np.float32),
        hist=summed(stats.hist),
        under=summed(stats.under),
        over=summed(stats.over),
        active=active,
    )


def merge_parts(stats: ActivationStats, size: int) -> ActivationStats:
    """Returns the statistics of a whole batch, given those of its equal parts.

    Args:
      stats: as for `merge_rows`, the first axis being the part.
      size: number of values of one part.

    Returns:
      The same without the first axis.
    """
    whole = merge_rows(stats, size, [0])
    return jax.tree.map(lambda column, part: column[0].astype(part.dtype), whole, stats)


def sum_of_rows(
    counts: Num[np.ndarray, "R ..."], starts: Any, dtype: type[np.int32] | type[np.int64]
) -> Num[np.ndarray, "G ..."]:
    """Returns the sums of groups of neighbouring rows of counts.

    `np.add.reduceat` takes fifty times as long for two rows of many bins.

    Args:
      counts: whole numbers.
      starts: (G,) the first row of each group, from 0 up.
      dtype: of the sums.
    """
    lengths = np.diff(starts, append=len(counts))
    if len(lengths) < max(lengths, default=0):
        ends = np.add(starts, lengths)
        groups = [counts[a:b].sum(0, dtype=dtype) for a, b in zip(starts, ends, strict=True)]
        return np.stack(groups)
    summed = counts[starts].astype(dtype)
    for row in range(1, max(lengths, default=0)):
        longer = np.flatnonzero(lengths > row)
        if len(longer) == len(lengths):
            summed += counts[np.add(starts, row)]
        else:
            summed[longer] += counts[np.add(starts, row)[longer]]
    return summed


def mean_of_rows(
    values: Float[np.ndarray, " R"], weights: Num[np.ndarray, " R"], starts: Int[np.ndarray, " G"]
) -> Float[np.ndarray, " G"]:
    """Returns the weighted mean of each group of rows, not finite where one of the rows is not.

    Rows of weight 0 are left out, whatever their value; a group of such rows is NaN.
    """
    values = np.where(weights > 0, values, 0)
    with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
        total = np.add.reduceat(values * weights, starts)
        return (total / np.add.reduceat(weights, starts)).astype(values.dtype)


def row_span(steps: int, rows: int) -> int:
    """Returns the steps of a row of at most `rows` rows: the smallest power of two.

    Examples:
      >>> row_span(1025, 1024)
      2
    """
    return 1 << (max(-(-steps // rows), 1) - 1).bit_length()


def group_starts(first: Int[np.ndarray, " G"], watched: Int[np.ndarray, " S"]) -> Any:
    """Returns the first watched row of each group that begins at the steps `first`."""
    group_of = np.searchsorted(first, watched, side="right")
    return np.flatnonzero(np.diff(group_of, prepend=0))


def count_dtype(values: Any) -> type[np.int32] | type[np.int64]:
    """Returns the smaller of int32 and int64 that holds counts up to the largest of `values`."""
    return np.int32 if np.max(values, initial=0) <= np.iinfo(np.int32).max else np.int64
