"""Statistics of activations, computed inside the jitted step; only a few hundred bytes leave it.

They are the statistics of fastai's `ActivationStats` (https://docs.fast.ai/callback.hook.html), so
that plots compare with the chapter's. Added are the share of |x| near zero and the number of values
under and over the histogram.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from convjax.stats.bins import FASTAI, Bins, as_bins

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
    bins = as_bins(bins)
    x = jnp.asarray(jax.lax.stop_gradient(x).astype(jnp.float32))
    active = None
    if channel_axis is not None:
        maps = x if x.ndim > 1 else x.reshape(-1, 1)
        channel = channel_axis % maps.ndim
        active = jnp.any(maps > 0, axis=tuple(i for i in range(maps.ndim) if i != channel))
    x = x.reshape(-1)
    # Two passes: E[x²] − E[x]² would cancel where |mean| ≫ std.
    mean = jnp.mean(x)
    std = jnp.sqrt(jnp.sum(jnp.square(x - mean)) / max(x.size - 1, 1))
    if histogram and bins == FASTAI:
        # One pass counts everything: the values around zero have three bins of their own, which add
        # up to the shares near zero, to `under` and to the first bin of the histogram.
        low, below, above, *inside, over = count(_fine_bin(x), FASTAI.count + 4)
        size = jnp.float32(x.size)
        return ActivationStats(
            mean=mean,
            std=std,
            near_zero=(low + below + above) / size,
            abs_near_zero=(below + above) / size,
            hist=jnp.stack([above + inside[0], *inside[1:]]),
            under=low + below,
            over=over,
            active=active,
        )
    hist = under = over = None
    if histogram:
        counts = _bin_counts(x, bins)
        under, hist, over = counts[0], counts[1:-1], counts[-1]
    shares = _share(x <= NEAR_ZERO), _share(jnp.abs(x) <= NEAR_ZERO)
    return ActivationStats(mean, std, *shares, hist, under, over, active)


def _fine_bin(x: Float[Array, " N"]) -> Int[Array, " N"]:
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


def _bin_counts(x: Float[Array, " N"], bins: Bins) -> Int[Array, " _"]:
    """Returns the counts of under, the bins, and over; NaNs are not counted."""
    low, high = bins.edges[[0, -1]].astype(np.float32)
    index = 1 + _bin(x, bins)
    index = jnp.where(x < low, 0, jnp.where(x > high, bins.count + 1, index))
    return count(jnp.where(jnp.isnan(x), bins.count + 2, index), bins.count + 2)


def _bin(x: Float[Array, " N"], bins: Bins) -> Int[Array, " N"]:
    """Returns the bin of each value, the first or the last bin for values outside."""
    scale = bins.count / (bins.high - bins.low)
    offset = bins.low * scale
    if math.frexp(scale)[0] == 0.5 and offset.is_integer():
        # A power of two: the product is exact in float32, and so is its floor.
        return jnp.clip(jnp.floor(x * scale) - offset, 0, bins.count - 1).astype(jnp.int32)
    # Elsewhere rounding may move a value to a neighbouring bin, which its edges correct.
    guess = jnp.clip(jnp.floor(x * scale - offset), 0, bins.count - 1).astype(jnp.int32)
    edges = jnp.asarray(bins.edges, jnp.float32)
    index = guess + (x >= edges[guess + 1]) - (x < edges[guess])
    return jnp.clip(index, 0, bins.count - 1)


def count(index: Int[Array, " N"], bins: int) -> Int[Array, " bins"]:
    """Returns how often each of 0 … bins − 1 occurs; larger indices are not counted.

    The cheapest exact form depends on the backend. On CPU it is a scatter-add, which runs in one
    thread beside the products of the backward pass; comparing with every bin took longer than the
    rest of the step. Elsewhere, by reasoning and not yet by measurement, a scatter-add would
    serialise on the few addresses where most activations lie, and comparisons cost little.
    """
    if jax.default_backend() == "cpu":
        return jnp.zeros(bins, jnp.int32).at[index].add(1, mode="drop")
    return jnp.sum(index[:, None] == jnp.arange(bins), 0, dtype=jnp.int32)


def _share(hits: Bool[Array, " N"]) -> Float[Array, ""]:
    exact = jnp.float32 if hits.size <= _EXACT_IN_FLOAT32 else jnp.int32
    return jnp.sum(hits, dtype=exact) / jnp.float32(hits.size)
