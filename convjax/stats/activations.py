"""Statistics of activations, computed inside the jitted step; only a few hundred bytes leave it.

They are the statistics of fastai's `ActivationStats` (https://docs.fast.ai/callback.hook.html), so
that plots compare with the chapter's. Added are the share of |x| near zero and the number of values
under and over the histogram.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from convjax.stats.bins import FASTAI, Bins, as_bins
from convjax.stats.counting import count_rows, explicitly_sharded, replicated
from convjax.stats.groups import groups_of, in_order, joined, stacked

NEAR_ZERO = 0.05  # fastai's threshold, in units of the activation

# A float32 sum of ones is exact up to here and, on CPU, faster than a sum of integers.
_EXACT_IN_FLOAT32 = 2**24


class ActivationStats(NamedTuple):
    """The statistics of one layer's output at one step; every field is an array.

    NaNs are not stored: their number is that of all values less under, hist and over. These three
    are None without a histogram, and `active` is None without a channel axis.
    """

    mean: Float[Array | np.ndarray, "..."]
    std: Float[Array | np.ndarray, "..."]  # unbiased, as torch.std
    near_zero: Float[Array | np.ndarray, "..."]  # share of x <= 0.05, with all negative numbers
    abs_near_zero: Float[Array | np.ndarray, "..."]  # share of |x| <= 0.05
    hist: Int[Array | np.ndarray, "... B"] | None  # int32 counts of the bins
    under: Int[Array | np.ndarray, "..."] | None  # int32 count of x below the bins
    over: Int[Array | np.ndarray, "..."] | None  # int32 count of x above the bins
    active: Bool[Array | np.ndarray, "... C"] | None = None  # whether a channel has a value above 0


def activation_stats(
    x: Real[Array | np.ndarray, "..."],
    *,
    histogram: bool = True,
    bins: Bins | str = "fastai",
    channel_axis: int | None = None,
) -> ActivationStats:
    """Returns the statistics of one layer's output.

    The values are cast to float32 first, so that the counts equal those of a float32 run. NaNs are
    in none of the counts and make mean and std NaN.

    Args:
      x: the output, of any shape.
      histogram: False leaves out hist, under and over, most of the cost.
      bins: of the histogram: "fastai" (40 over 0 to 10), "symmetric" (40 over -5 to 5) or a
        `convjax.Bins`.
      channel_axis: the axis of x that counts channels; None leaves out which channels were active.
        An output with one number per example has one channel.

    Raises:
      TypeError: if bins is neither a name nor a `convjax.Bins`.
      ValueError: if no preset of bins has the name.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import activation_stats
      >>> stats = activation_stats(jnp.array([-1.0, 0.0, 0.3, 11.0]))
      >>> int(stats.under), stats.hist[:2].tolist(), int(stats.over)
      (1, [1, 1], 1)
      >>> float(stats.near_zero), float(stats.abs_near_zero)
      (0.5, 0.25)
      >>> int(activation_stats(jnp.array([-1.0, 0.3]), bins="symmetric").hist.sum())
      2
    """
    axes = [channel_axis]
    return per_layer(*stats_of([x], histogram=histogram, bins=as_bins(bins), channel_axes=axes))[0]


class Units(NamedTuple):
    """Which channels of several layers were active.

    Attributes:
      active: the channels of all layers, one after the other; None for no layers with channels.
      channels: number of each layer, 0 where its channels are not known.
    """

    active: Bool[Array | np.ndarray, "... C"] | None
    channels: tuple[int, ...]

    def split(self) -> list[Any]:
        """Returns which channels of each layer were active, None where they are not known."""
        ends = np.cumsum(self.channels)
        return [
            None if self.active is None or not count else self.active[..., end - count : end]
            for count, end in zip(self.channels, ends, strict=True)
        ]


def per_layer(stats: ActivationStats, units: Units) -> tuple[ActivationStats, ...]:
    """Returns the statistics of each layer, given what `stats_of` returns."""

    def layer(i: int, active: Any) -> ActivationStats:
        row = partial(jax.lax.index_in_dim, index=i, keepdims=False)
        return jax.tree.map(row, stats)._replace(active=active)

    return tuple(layer(i, active) for i, active in enumerate(units.split()))


def stats_of(
    arrays: Sequence[Real[Array | np.ndarray, "..."]],
    *,
    histogram: bool,
    bins: Bins,
    channel_axes: Sequence[int | None],
) -> tuple[ActivationStats, Units]:
    """Returns the statistics of several layers' outputs, each as of `activation_stats`.

    Args:
      arrays: the outputs, of any shapes.
      histogram, bins: as for `activation_stats`.
      channel_axes: the axis of each, or None.

    Returns:
      The statistics, whose fields have a first axis of one entry per layer, without `active`, and
      the channels that were active.
    """
    if not arrays:
        none = jnp.zeros(0, jnp.float32)
        zero = jnp.zeros(0, jnp.int32)
        counts = (jnp.zeros((0, bins.count), jnp.int32), zero, zero) if histogram else (None,) * 3
        return ActivationStats(none, none, none, none, *counts), Units(None, ())
    pairs = [_arranged(x, axis) for x, axis in zip(arrays, channel_axes, strict=True)]
    arranged, axes = [x for x, _ in pairs], [axis for _, axis in pairs]
    groups = groups_of(arranged, axes)
    rows = [
        _of_rows(stacked(arranged, g), axes[g[0]], histogram, bins, jax.default_backend())
        for g in groups
    ]
    channels = [0 if axis is None else x.shape[axis] for x, axis in pairs]
    every = in_order(groups, [of_group._replace(active=None) for of_group in rows])
    return (
        _finished(every, [x.size for x in arranged], histogram, bins),
        Units(joined(groups, channels, [of_group.active for of_group in rows]), tuple(channels)),
    )


class _Rows(NamedTuple):
    """What is taken of rows of values at once; `counts` is as `_fine_bin` or `_bin` says."""

    mean: Any
    squares: Any  # the sum of the squared differences from the mean
    near: Any  # how many x <= 0.05 and |x| <= 0.05, None where the counts say it
    counts: Any
    active: Any


def _arranged(x: Any, channel_axis: int | None) -> tuple[Any, int | None]:
    """Returns an output with its axes merged as far as possible, and its axis of channels.

    Outputs of different shapes then have the same operations.
    """
    x = jnp.asarray(jax.lax.stop_gradient(x))
    if channel_axis is not None and x.ndim < 2:
        x, channel_axis = x.reshape(-1, 1), 1
    if channel_axis is not None:
        channel_axis %= x.ndim
    if explicitly_sharded(x):  # its axes must stay
        return x, channel_axis
    if channel_axis is None:
        return x.reshape(-1), None
    shape = x.shape
    before, after = math.prod(shape[:channel_axis]), math.prod(shape[channel_axis + 1 :])
    return x.reshape(before, shape[channel_axis], after), 1


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _of_rows(x: Any, channel_axis: int | None, histogram: bool, bins: Bins, backend: str) -> _Rows:
    """Takes the statistics of rows; jitted, so that rows of one type are traced once.

    Args:
      x: (R, …) rows.
      channel_axis: of a row.
      histogram, bins: as for `activation_stats`.
      backend: that the form of the counts depends on.
    """
    x = x.astype(jnp.float32)
    active = None
    if channel_axis is not None:
        axes = tuple(i for i in range(1, x.ndim) if i != channel_axis + 1)
        active = replicated(jnp.any(x > 0, axis=axes))
    if not explicitly_sharded(x):
        x = x.reshape(len(x), -1)
    axes = tuple(range(1, x.ndim))
    size = math.prod(x.shape[1:])
    # Two passes: E[x²] − E[x]² would cancel where |mean| ≫ std.
    mean = jnp.mean(x, axes, keepdims=True)
    squares = jnp.sum(jnp.square(x - mean), axes)
    counts = near = None
    if histogram:
        fine = bins == FASTAI
        counts = count_rows(_fine_bin(x), FASTAI.count + 4) if fine else _bin_counts(x, bins)
    if not (histogram and bins == FASTAI):
        exact = jnp.float32 if size <= _EXACT_IN_FLOAT32 else jnp.int32
        hits = (x <= NEAR_ZERO), (jnp.abs(x) <= NEAR_ZERO)
        near = tuple(jnp.sum(hit, axes, dtype=exact).astype(jnp.float32) for hit in hits)
    return _Rows(mean.reshape(-1), squares, near, counts, active)


def _finished(rows: _Rows, sizes: Sequence[int], histogram: bool, bins: Bins) -> ActivationStats:
    """Returns the statistics of all layers, given the number of values of each."""
    counts = rows.counts
    std = jnp.sqrt(rows.squares / np.asarray([max(size - 1, 1) for size in sizes], np.float32))
    if histogram and bins == FASTAI:
        # One pass counted everything: the values around zero have three bins of their own, which
        # add up to the shares near zero, to `under` and to the first bin of the histogram.
        near = jnp.sum(counts[:, :3], 1), jnp.sum(counts[:, 1:3], 1)
        first = counts[:, 2:3] + counts[:, 3:4]
        hist = jnp.concatenate([first, counts[:, 4:-1]], 1)
        under, over = jnp.sum(counts[:, :2], 1), counts[:, -1]
    else:
        near, hist, under, over = rows.near, None, None, None
        if histogram:
            under, hist, over = counts[:, 0], counts[:, 1:-1], counts[:, -1]
    shares = (n.astype(jnp.float32) / np.asarray(sizes, np.float32) for n in near)
    near_zero, abs_near_zero = shares
    return ActivationStats(rows.mean, std, near_zero, abs_near_zero, hist, under, over)


def _fine_bin(x: Float[Array, "R ..."]) -> Int[Array, "R ..."]:
    """Returns the index of a bin that separates values near zero.

    0 for x < −0.05, 1 for −0.05 ≤ x < 0, 2 for 0 ≤ x ≤ 0.05, then 3 + the fastai bin of x, 43 for
    x > 10 and 44 for NaN.
    """
    index = 3 + _bin(x, FASTAI)
    index = jnp.where(x <= NEAR_ZERO, 2, index)
    index = jnp.where(x < 0, 1, index)
    index = jnp.where(x < -NEAR_ZERO, 0, index)
    index = jnp.where(x > FASTAI.high, 3 + FASTAI.count, index)
    return jnp.where(jnp.isnan(x), 4 + FASTAI.count, index)


def _bin_counts(x: Float[Array, "R ..."], bins: Bins) -> Int[Array, "R _"]:
    """Returns the counts of under, the bins, and over of each row; NaNs are not counted."""
    low, high = bins.edges[[0, -1]].astype(np.float32)
    index = 1 + _bin(x, bins)
    index = jnp.where(x < low, 0, jnp.where(x > high, bins.count + 1, index))
    return count_rows(jnp.where(jnp.isnan(x), bins.count + 2, index), bins.count + 2)


def _bin(x: Float[Array, "R ..."], bins: Bins) -> Int[Array, "R ..."]:
    """Returns the bin of each value, the first or the last bin for values outside."""
    scale = bins.count / (bins.high - bins.low)
    offset = bins.low * scale
    if math.frexp(scale)[0] == 0.5 and offset.is_integer():
        # A power of two: the product is exact in float32, and so is its floor.
        return jnp.clip(jnp.floor(x * scale) - offset, 0, bins.count - 1).astype(jnp.int32)
    # Elsewhere rounding may move a value to a neighbouring bin, which its edges correct.
    guess = jnp.clip(jnp.floor(x * scale - offset), 0, bins.count - 1).astype(jnp.int32)
    edges = jnp.asarray(bins.edges, jnp.float32)
    if explicitly_sharded(x):  # refuses to look the edges up
        return jnp.sum(x[..., None] >= edges[1:-1], -1, dtype=jnp.int32)
    index = guess + (x >= edges[guess + 1]) - (x < edges[guess])
    return jnp.clip(index, 0, bins.count - 1)
