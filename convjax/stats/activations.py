"""Statistics of activations, computed inside the jitted step; only a few hundred bytes leave it.

They are fastai's (`ActivationStats` of https://docs.fast.ai/callback.hook.html), so that pictures
compare with the chapter's, and beside them what those leave out: |x| near zero, and how many
values lie under and over the histogram.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NEAR_ZERO = 0.05  # fastai's threshold, in units of the activation
HIST_BINS = 40
HIST_RANGE = (0.0, 10.0)  # in units of the activation

# A float32 sum of ones is exact up to here and, on CPU, faster than one of integers.
_EXACT_IN_FLOAT32 = 2**24


class ActivationStats(NamedTuple):
    """What is kept of one layer's output at one step; every field is an array.

    `nan` is not kept: it is the number of values less those counted in under, hist and over. These
    three are None where no histogram was asked for, and so is `active` where units were not.
    """

    mean: jax.Array
    std: jax.Array  # unbiased, as torch.std
    near_zero: jax.Array  # share of x <= 0.05, negative numbers included, as fastai counts
    abs_near_zero: jax.Array  # share of |x| <= 0.05
    hist: jax.Array | None  # int32 counts, shape (40,), over 0..10; 10 falls in the last bin
    under: jax.Array | None  # int32 count of x < 0
    over: jax.Array | None  # int32 count of x > 10
    active: jax.Array | None = None  # bool (C,): whether any of a channel's values is above 0


def activation_stats(
    x: jax.Array, *, histogram: bool = True, channel_axis: int | None = None
) -> ActivationStats:
    """Reduces one layer's output, any shape, to its statistics.

    The values are cast to float32 first, so that counts agree with those of a float32 run to the
    last one. NaNs are in none of the counts and make mean and std NaN.

    Args:
      x: the output.
      histogram: False leaves out hist, under and over, most of the cost.
      channel_axis: of x; None leaves out which channels were active. One number per example is one
        channel.
    """
    x = jax.lax.stop_gradient(x).astype(jnp.float32)
    active = None
    if channel_axis is not None:
        maps = x if x.ndim > 1 else x.reshape(-1, 1)
        channel = channel_axis % maps.ndim
        active = jnp.any(maps > 0, axis=tuple(i for i in range(maps.ndim) if i != channel))
    x = x.reshape(-1)
    # Two passes: E[x²] − E[x]² would cancel where |mean| ≫ std.
    mean = jnp.mean(x)
    std = jnp.sqrt(jnp.sum(jnp.square(x - mean)) / max(x.size - 1, 1))
    if not histogram:
        shares = _share(x <= NEAR_ZERO), _share(jnp.abs(x) <= NEAR_ZERO)
        return ActivationStats(mean, std, *shares, None, None, None, active)
    # One pass counts everything: the values around zero have three bins of their own, which add up
    # to the shares near zero, to `under` and to the first bin of the histogram.
    low, below, above, *bins, over = count(_fine_bin(x), HIST_BINS + 4)
    size = jnp.float32(x.size)
    return ActivationStats(
        mean=mean,
        std=std,
        near_zero=(low + below + above) / size,
        abs_near_zero=(below + above) / size,
        hist=jnp.stack([above + bins[0], *bins[1:]]),
        under=low + below,
        over=over,
        active=active,
    )


def merge(stats: ActivationStats, values: Any, starts: Any) -> ActivationStats:
    """Returns the statistics of groups of neighbouring rows, as if taken of all their values.

    Counts are exact, in 64 bits where 32 are too few; the others follow from the rows' within the
    rounding of float32.

    Args:
      stats: NumPy arrays whose first axis is the row: (R, …), hist (R, …, 40), or None; active may
        be packed into bits.
      values: how many each row's statistics are of, in the shape of the mean or broadcast to it.
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
        return None if column is None else np.add.reduceat(column, starts, dtype=integer)

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


def count_dtype(values: Any) -> Any:
    """Returns the smaller of int32 and int64 that holds counts of so many values each."""
    return np.int32 if np.max(values, initial=0) <= np.iinfo(np.int32).max else np.int64


def group_starts(first: Any, watched: Any) -> Any:
    """Returns the first watched row of each group that begins at the steps `first`."""
    group_of = np.searchsorted(first, watched, side="right")
    return np.flatnonzero(np.diff(group_of, prepend=0))


def merge_parts(stats: ActivationStats, size: int) -> ActivationStats:
    """Returns the statistics of a whole batch, given those of its equal parts.

    Args:
      stats: as for `merge`, the first axis being the part.
      size: number of values of one part.

    Returns:
      The same without the first axis.
    """
    whole = merge(stats, size, [0])
    return jax.tree.map(lambda column, part: column[0].astype(part.dtype), whole, stats)


def histogram(
    x: jax.Array, *, bins: int = HIST_BINS, limits: tuple[float, float] = HIST_RANGE
) -> jax.Array:
    """Counts values in equal bins, and those under and over them.

    A bin holds its lower edge; the upper end of the range falls in the last bin, as with
    `numpy.histogram` and `torch.histc`. For 40 bins over 0..10 the edges are exact in float32.

    Args:
      x: values, float32, any shape.
      bins: number of bins.
      limits: (low, high), in units of x.

    Returns:
      int32, shape (bins + 2,): under, the bins, over. NaNs are not counted.
    """
    low, high = limits
    x = x.reshape(-1)
    index = _bin(x, bins, limits) + 1
    index = jnp.where(x < low, 0, jnp.where(x > high, bins + 1, index))
    return count(jnp.where(jnp.isnan(x), bins + 2, index), bins + 2)


def _bin(x: jax.Array, bins: int, limits: tuple[float, float]) -> jax.Array:
    """Returns the bin of each value, those outside in the first or the last."""
    low, high = limits
    index = jnp.floor((x - low) * (bins / (high - low)))
    return jnp.clip(index, 0, bins - 1).astype(jnp.int32)


def _fine_bin(x: jax.Array) -> jax.Array:
    """Returns 0 for x < −0.05, 1 for −0.05 ≤ x < 0, 2 for 0 ≤ x ≤ 0.05, then 3 + its bin of the
    histogram, 43 for x > 10 and 44 for NaN."""
    index = 3 + _bin(x, HIST_BINS, HIST_RANGE)
    index = jnp.where(x <= NEAR_ZERO, 2, index)
    index = jnp.where(x < 0, 1, index)
    index = jnp.where(x < -NEAR_ZERO, 0, index)
    index = jnp.where(x > HIST_RANGE[1], 3 + HIST_BINS, index)
    return jnp.where(jnp.isnan(x), 4 + HIST_BINS, index)


def count(index: jax.Array, bins: int) -> jax.Array:
    """Counts how often each of 0 … bins − 1 occurs; a larger index is in no count.

    The exact form that costs least differs by backend. On CPU it is adding ones at an index, which
    runs in one thread beside the products of the backward pass; comparing with every bin took
    longer than the rest of the step. Elsewhere, by reasoning and not yet by measurement, the ones
    would queue for the few addresses where most activations lie, and comparisons cost little.
    """
    if jax.default_backend() == "cpu":
        return jnp.zeros(bins, jnp.int32).at[index].add(1, mode="drop")
    return jnp.sum(index[:, None] == jnp.arange(bins), 0, dtype=jnp.int32)


def _share(hits: jax.Array) -> jax.Array:
    exact = jnp.float32 if hits.size <= _EXACT_IN_FLOAT32 else jnp.int32
    return jnp.sum(hits, dtype=exact) / jnp.float32(hits.size)
