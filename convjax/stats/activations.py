"""Statistics of activations, computed inside the jitted step; only a few hundred bytes leave it.

They are the statistics of fastai's `ActivationStats` (https://docs.fast.ai/callback.hook.html), so
that plots compare with the chapter's. Added are the share of |x| near zero and the number of values
under and over the histogram.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from convjax.stats.bins import FASTAI, Bins, as_bins
from convjax.stats.forms import Rows, rows_of


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
    given = [_with_channels(x, axis) for x, axis in zip(arrays, channel_axes, strict=True)]
    values, axes = [x for x, _ in given], tuple(axis for _, axis in given)
    rows = rows_of(values, axes, histogram=histogram, bins=bins)
    channels = tuple(0 if axis is None else x.shape[axis] for x, axis in given)
    return (
        _finished(rows, [x.size for x in values], histogram, bins),
        Units(rows.active, channels),
    )


def _with_channels(x: Any, channel_axis: int | None) -> tuple[Any, int | None]:
    """Returns an output that has its axis of channels, counted from the first."""
    x = jnp.asarray(jax.lax.stop_gradient(x))
    if channel_axis is None:
        return x, None
    return (x.reshape(-1, 1), 1) if x.ndim < 2 else (x, channel_axis % x.ndim)


def _finished(rows: Rows, sizes: Sequence[int], histogram: bool, bins: Bins) -> ActivationStats:
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
