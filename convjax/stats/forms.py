"""What is taken of the outputs of several layers, in the form that suits the platform.

All forms give the same counts. On CPU few operations treat outputs of one shape together. On a GPU,
where a step of a small network is bound by launches, all outputs are rows of one array. On a TPU,
where flattening an array moves all of it, each output is reduced along its own axes, and the bins
are differences of how many values lie below their edges.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from convjax.stats.bins import FASTAI, Bins
from convjax.stats.counting import (
    count_by_comparing,
    count_rows,
    explicitly_sharded,
    replicated,
)
from convjax.stats.groups import groups_of, in_order, joined, stacked

NEAR_ZERO = 0.05  # fastai's threshold, in units of the activation

# A float32 sum of ones is exact up to here and, on CPU, faster than a sum of integers.
_EXACT_IN_FLOAT32 = 2**24

# Outputs of more elements than this are not stacked with others: a launch costs little beside them.
_STACKED_SIZE = 2**22

# Padding may make rows of outputs this many times as large as the outputs.
_PADDED = 4

# The longest period of channels of several layers, whose maxima are taken at once.
_PERIOD = 4096


class Rows(NamedTuple):
    """What is taken of L layers; `counts` is as `_fine_bin` or `_bin_counts` says."""

    mean: Any
    squares: Any  # the sum of the squared differences from the mean
    near: Any  # how many x <= 0.05 and |x| <= 0.05, None where the counts say it
    counts: Any
    active: Any  # whether each channel has a value above 0, those of all layers in one row


def rows_of(
    arrays: Sequence[Array], axes: tuple[int | None, ...], *, histogram: bool, bins: Bins
) -> Rows:
    """Returns what is taken of the outputs of layers.

    Args:
      arrays: the outputs, at least one.
      axes: that of the channels of each, from the first; None for none.
      histogram, bins: as for `convjax.activation_stats`.
    """
    grouping, stacking, own_axes = (
        partial(form, axes=axes, histogram=histogram, bins=bins)
        for form in (by_groups, by_stacking, on_own_axes)
    )
    if any(map(explicitly_sharded, arrays)):  # whose axes must stay
        return grouping(arrays)
    rows: Rows = jax.lax.platform_dependent(
        list(arrays), cuda=stacking, rocm=stacking, tpu=own_axes, default=grouping
    )
    return rows


# --- outputs of one shape together ---------------------------------------------------------------


def by_groups(
    arrays: Sequence[Array], axes: tuple[int | None, ...], *, histogram: bool, bins: Bins
) -> Rows:
    """`rows_of` with the same operations for all outputs of one shape."""
    pairs = [_arranged(x, axis) for x, axis in zip(arrays, axes, strict=True)]
    arranged, merged = [x for x, _ in pairs], [axis for _, axis in pairs]
    groups = groups_of(arranged, merged)
    rows = [_of_group(stacked(arranged, g), merged[g[0]], histogram, bins) for g in groups]
    channels = [0 if axis is None else x.shape[axis] for x, axis in pairs]
    every: Rows = in_order(groups, [of_group._replace(active=None) for of_group in rows])
    return every._replace(active=joined(groups, channels, [of_group.active for of_group in rows]))


def _arranged(x: Any, channel_axis: int | None) -> tuple[Any, int | None]:
    """Returns an output with its axes merged as far as possible, and its axis of channels.

    Outputs of different shapes then have the same operations.
    """
    if explicitly_sharded(x):
        return x, channel_axis
    if channel_axis is None:
        return x.reshape(-1), None
    shape = x.shape
    before, after = math.prod(shape[:channel_axis]), math.prod(shape[channel_axis + 1 :])
    return x.reshape(before, shape[channel_axis], after), 1


@partial(jax.jit, static_argnums=(1, 2, 3))
def _of_group(x: Any, channel_axis: int | None, histogram: bool, bins: Bins) -> Rows:
    """Takes the statistics of rows; jitted, so that rows of one type are traced once.

    Args:
      x: (R, …) rows.
      channel_axis: of a row.
      histogram, bins: as for `rows_of`.
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
        near = _near(x, axes, size)
    return Rows(mean.reshape(-1), squares, near, counts, active)


def _near(x: Array, axes: tuple[int, ...], size: int, counted: Any = True) -> tuple[Any, Any]:
    """Returns how many values are at most `NEAR_ZERO`, and how many magnitudes."""
    exact = jnp.float32 if size <= _EXACT_IN_FLOAT32 else jnp.int32
    hits = (x <= NEAR_ZERO) & counted, (jnp.abs(x) <= NEAR_ZERO) & counted
    low, small = (jnp.sum(hit, axes, dtype=exact).astype(jnp.float32) for hit in hits)
    return low, small


# --- all outputs as rows of one array ------------------------------------------------------------


def by_stacking(
    arrays: Sequence[Array], axes: tuple[int | None, ...], *, histogram: bool, bins: Bins
) -> Rows:
    """`rows_of` with each reduction of all outputs in one operation, as far as memory allows."""
    buckets = buckets_of([x.size for x in arrays])
    rows = []
    for bucket in buckets:
        members = [arrays[i].astype(jnp.float32) for i in bucket]
        rows.append(_of_stack(members, [axes[i] for i in bucket], histogram, bins))
    every: Rows = in_order(buckets, [of_bucket._replace(active=None) for of_bucket in rows])
    active = {
        i: a for b, of in zip(buckets, rows, strict=True) for i, a in zip(b, of.active, strict=True)
    }
    kept = [active[i] for i in range(len(arrays)) if active[i] is not None]
    return every._replace(active=jnp.concatenate(kept) if kept else None)


def buckets_of(sizes: Sequence[int]) -> list[list[int]]:
    """Returns the positions of outputs that are stacked, each largest with those that fit."""
    buckets: list[list[int]] = []
    total = 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        first = buckets[-1][0] if buckets else i
        padded = sizes[first] * (len(buckets[-1]) + 1) if buckets else 0
        most = max(_STACKED_SIZE, _PADDED * (total + sizes[i]))
        fits = sizes[first] <= _STACKED_SIZE and padded <= most
        if buckets and fits:
            buckets[-1].append(i)
            total += sizes[i]
        else:
            buckets.append([i])
            total = sizes[i]
    return [sorted(bucket) for bucket in buckets]


def _of_stack(
    arrays: Sequence[Array], axes: Sequence[int | None], histogram: bool, bins: Bins
) -> Rows:
    """Takes the statistics of a bucket; `active` is a list, None for a layer without channels."""
    last = [x.shape[-1] for x, axis in zip(arrays, axes, strict=True) if axis == x.ndim - 1]
    period = math.lcm(*last) if last else 1
    together = period <= _PERIOD
    period = period if together else 1
    sizes = np.asarray([x.size for x in arrays])
    length = -(-int(sizes.max()) // period) * period
    rows = jnp.stack([jnp.pad(x.reshape(-1), (0, length - x.size)) for x in arrays])
    counted = jnp.arange(length) < sizes[:, None]
    mean = jnp.sum(rows, 1) / sizes.astype(np.float32)
    apart = jnp.where(counted, jnp.square(rows - mean[:, None]), 0)
    counts = near = None
    if histogram:
        fine = bins == FASTAI
        number = (FASTAI.count + 4) if fine else bins.count + 2
        index = _fine_bin(rows) if fine else _coarse_bin(rows, bins)
        index = jnp.where(counted, index, number)
        if length <= _EXACT_IN_FLOAT32:  # one sum of both
            hits = (index[..., None] == jnp.arange(number)).astype(jnp.float32)
            sums = jnp.sum(jnp.concatenate([hits, apart[..., None]], -1), 1)
            squares, counts = sums[:, -1], sums[:, :-1].astype(jnp.int32)
        else:
            squares, counts = jnp.sum(apart, 1), count_by_comparing(index, number)
    else:
        squares = jnp.sum(apart, 1)
    if not (histogram and bins == FASTAI):
        near = _near(rows, (1,), length, counted)
    # The channels of all layers recur with one period, so that one maximum serves all.
    highest = jnp.max(rows.reshape(len(rows), -1, period), 1) if last and together else None
    active: list[Any] = []
    for i, (x, axis) in enumerate(zip(arrays, axes, strict=True)):
        if axis is None:
            active.append(None)
        elif highest is not None and axis == x.ndim - 1:
            active.append(jnp.max(highest[i].reshape(-1, x.shape[-1]), 0) > 0)
        else:
            active.append(jnp.any(x > 0, tuple(a for a in range(x.ndim) if a != axis)))
    return Rows(mean, squares, near, counts, active)


# --- each output along its own axes --------------------------------------------------------------


def on_own_axes(
    arrays: Sequence[Array], axes: tuple[int | None, ...], *, histogram: bool, bins: Bins
) -> Rows:
    """`rows_of` without moving a value: sums along the axes that each output has."""
    rows = [_of_output(x, axis, histogram, bins) for x, axis in zip(arrays, axes, strict=True)]
    active = [of.active for of in rows if of.active is not None]
    every: Rows = jax.tree.map(
        lambda *of: jnp.stack(of), *(of._replace(active=None) for of in rows)
    )
    if histogram:  # the bins are differences
        every = every._replace(counts=jnp.diff(every.counts, axis=1, prepend=0))
    return every._replace(active=jnp.concatenate(active) if active else None)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _of_output(x: Any, channel_axis: int | None, histogram: bool, bins: Bins) -> Rows:
    x = x.astype(jnp.float32)
    active = None
    if channel_axis is not None:
        active = jnp.any(x > 0, tuple(i for i in range(x.ndim) if i != channel_axis))
    fine = histogram and bins == FASTAI
    below = _below_fine(x) if fine else _below(x, bins) if histogram else []
    near = [] if fine else [x <= NEAR_ZERO, jnp.abs(x) <= NEAR_ZERO]
    # One pass, of values less one near their mean, as `convjax.ops.batch_moments` takes them.
    shift = jnp.mean(x.reshape(1) if not x.ndim else x[:1])
    shift = jnp.where(jnp.isfinite(shift), shift, 0)
    first, second, *hits = sums_of_all([x - shift, jnp.square(x - shift), *below, *near])
    mean = first / x.size
    counts = jnp.stack(hits[: len(below)]) if histogram else None
    return Rows(
        mean + shift,
        jnp.maximum(second - first * mean, 0),
        None if fine else tuple(hit.astype(jnp.float32) for hit in hits[len(below) :]),
        counts,
        active,
    )


def sums_of_all(values: Sequence[Array]) -> tuple[Array, ...]:
    """Returns the sums of arrays of one shape, of truth values as int32, in one operation."""
    values = [x.astype(jnp.int32) if x.dtype == jnp.bool_ else x for x in values]
    sums: tuple[Array, ...] = jax.lax.reduce(
        tuple(values),
        tuple(jnp.zeros((), x.dtype) for x in values),
        lambda one, other: tuple(a + b for a, b in zip(one, other, strict=True)),
        tuple(range(values[0].ndim)),
    )
    return tuple(sums)


def _below_fine(x: Float[Array, "..."]) -> list[Array]:
    """Returns which values lie below the upper ends of the bins of `_fine_bin`; no NaN does."""
    edges = [float(edge) for edge in FASTAI.edges[1:-1]]
    return [
        *(x < -NEAR_ZERO, x < 0, x <= NEAR_ZERO),
        *(x < edge for edge in edges),
        *(x <= FASTAI.high, x == x),
    ]


def _below(x: Float[Array, "..."], bins: Bins) -> list[Array]:
    """Returns likewise for `_bin_counts`."""
    *lower, high = (float(edge) for edge in bins.edges)
    return [*(x < edge for edge in lower), x <= high, x == x]


# --- bins ----------------------------------------------------------------------------------------


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
    return count_rows(_coarse_bin(x, bins), bins.count + 2)


def _coarse_bin(x: Float[Array, "R ..."], bins: Bins) -> Int[Array, "R ..."]:
    """Returns 0 for values under the bins, 1 + the bin, and then the numbers of over and NaN."""
    low, high = bins.edges[[0, -1]].astype(np.float32)
    index = 1 + _bin(x, bins)
    index = jnp.where(x < low, 0, jnp.where(x > high, bins.count + 1, index))
    return jnp.where(jnp.isnan(x), bins.count + 2, index)


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
