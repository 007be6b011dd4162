"""The squared norms and the magnitudes of parameters, in the form that suits the platform.

As in `convjax.stats.forms`, all forms give the same counts.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from convjax.stats.chunks import Chunks
from convjax.stats.counting import (
    count_by_comparing,
    count_rows,
    explicitly_sharded,
    sum_rows,
)
from convjax.stats.forms import buckets_of, sums_of_all
from convjax.stats.groups import STACKED_SIZE, in_order

# Magnitudes have bins of a factor of 2, from 2^-34 (6e-11) to 2^6 (64). Powers of two, because the
# bin of a float32 is then its exponent: exact, and a shift instead of a logarithm.
LOG_BINS = 40
LOG_FIRST = -34

# The leaves of each tree: "params", and "grads", "updates" or "updated".
Leaves = Mapping[str, Sequence[Array]]
# Of each tree: the squared norm of each parameter, and its magnitudes but of "params".
Sums = tuple[dict[str, Any], dict[str, Any]]


def sums_of(arrays: Leaves, *, histogram: bool) -> Sums:
    """Returns the squared norms and the magnitudes of parameters, by the name of their tree.

    Args:
      arrays: the leaves; "updated" results in those of "updates".
      histogram: False leaves out the magnitudes.
    """
    chunked, stacking, own_axes = (
        partial(form, histogram=histogram) for form in (by_chunks, by_stacking, on_own_axes)
    )
    if any(explicitly_sharded(x) for leaves in arrays.values() for x in leaves):
        return chunked(arrays)
    sums: Sums = jax.lax.platform_dependent(
        dict(arrays), cuda=stacking, rocm=stacking, tpu=own_axes, default=chunked
    )
    return sums


def _with_updates(arrays: dict[str, Any]) -> dict[str, Any]:
    """Returns the arrays of trees in float32, with the updates instead of what they lead to."""
    arrays = {name: x.astype(jnp.float32) for name, x in arrays.items()}
    if "updated" in arrays:
        arrays["updates"] = arrays.pop("updated") - arrays["params"]
    return arrays


# --- chunks of all arrays ------------------------------------------------------------------------


def by_chunks(arrays: Leaves, *, histogram: bool) -> Sums:
    """`sums_of` with the same operations for chunks of all parameters but the largest."""
    together: list[int] = []
    alone: list[int] = []
    for i, of_parameter in enumerate(zip(*arrays.values(), strict=True)):
        kept = any(x.size > STACKED_SIZE or explicitly_sharded(x) for x in of_parameter)
        (alone if kept else together).append(i)
    # The axes of those alone stay as they are: what is split over devices remains split.
    blocks: list[tuple[Chunks | None, dict[str, Any]]] = [
        (None, {name: xs[i][None] for name, xs in arrays.items()}) for i in alone
    ]
    if together:
        chunks = Chunks(tuple(arrays["params"][i].size for i in together))
        laid = {name: chunks.of([xs[i] for i in together]) for name, xs in arrays.items()}
        blocks.append((chunks, laid))
    rows = [_of_rows(laid, chunks, histogram) for chunks, laid in blocks]
    sums: Sums = in_order([*([i] for i in alone), together], rows)
    return sums


@partial(jax.jit, static_argnums=(1, 2))
def _of_rows(
    laid: dict[str, Shaped[Array, "R ..."]], chunks: Chunks | None, histogram: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the squared norms and the magnitudes of parameters, by the name of their tree.

    Jitted, so that rows of one type are traced once.

    Args:
      laid: the rows of each tree.
      chunks: that the rows are of; None if each row is a parameter.
      histogram: False leaves out the magnitudes.
    """
    squares, hists = {}, {}
    # The differences of rows, since a difference per parameter would compile longer.
    for name, x in _with_updates(laid).items():
        sums = jnp.sum(jnp.square(x), tuple(range(1, x.ndim)))
        squares[name] = sums if chunks is None else sum_rows(sums, chunks.arrays)
        if histogram and name != "params":
            counts = count_rows(
                _magnitude_bin(x), LOG_BINS + 2, None if chunks is None else chunks.arrays
            )
            # Padding is zeros, and those are under.
            hists[name] = (
                counts if chunks is None else counts.at[:, 0].add(-chunks.padding.astype(np.int32))
            )
    return squares, hists


# --- all arrays as rows of one -------------------------------------------------------------------


def by_stacking(arrays: Leaves, *, histogram: bool) -> Sums:
    """`sums_of` with each reduction of all parameters in one operation, if memory allows."""
    buckets = buckets_of([x.size for x in arrays["params"]])
    rows = []
    for bucket in buckets:
        length = max(arrays["params"][i].size for i in bucket)
        laid = {
            name: jnp.stack([_padded(xs[i], length) for i in bucket]) for name, xs in arrays.items()
        }
        rows.append(_of_stack(_with_updates(laid), [arrays["params"][i].size for i in bucket]))
    sums: Sums = in_order(buckets, rows)
    return sums if histogram else (sums[0], {})


def _padded(x: Array, length: int) -> Float[Array, " length"]:
    """Returns the elements of an array, whose order does not matter, and zeros.

    Kernels lie in the order OHWI in the memory of a GPU, from which another would be a copy.
    """
    x = jnp.moveaxis(x, -1, 0) if x.ndim == 4 else x
    return jnp.pad(x.reshape(-1).astype(jnp.float32), (0, length - x.size))


def _of_stack(laid: dict[str, Float[Array, "R N"]], sizes: Sequence[int]) -> Sums:
    length = laid["params"].shape[1]
    squares = jnp.sum(jnp.square(jnp.stack(list(laid.values()))), 2)
    kept = [name for name in laid if name != "params"]
    index = _magnitude_bin(jnp.concatenate([laid[name] for name in kept]))
    counts = count_by_comparing(index, LOG_BINS + 2).reshape(len(kept), -1, LOG_BINS + 2)
    counts = counts.at[:, :, 0].add(np.asarray(sizes, np.int32) - length)  # padding is zeros
    return dict(zip(laid, squares, strict=True)), dict(zip(kept, counts, strict=True))


# --- each array along its own axes ---------------------------------------------------------------


def on_own_axes(arrays: Leaves, *, histogram: bool) -> Sums:
    """`sums_of` without moving a number."""
    names = ["updates" if name == "updated" else name for name in arrays]
    counted = [name for name in names if histogram and name != "params"]
    rows = [
        _of_array(dict(zip(arrays, leaves, strict=True)), histogram)
        for leaves in zip(*arrays.values(), strict=True)
    ]
    squares, below = (jnp.stack(of) for of in zip(*rows, strict=True))
    counts = jnp.diff(below.reshape(len(rows), len(counted), LOG_BINS + 2), axis=2, prepend=0)
    return (
        {name: squares[:, i] for i, name in enumerate(names)},
        {name: counts[:, i] for i, name in enumerate(counted)},
    )


@partial(jax.jit, static_argnums=1)
def _of_array(arrays: dict[str, Array], histogram: bool) -> tuple[Array, Array]:
    """Returns the squared norms, and how many magnitudes lie below each edge, by tree."""
    given = _with_updates(arrays)
    # In the order of the trees, in which the updates stand for what they lead to.
    trees = {name: given["updates" if name == "updated" else name] for name in arrays}
    edges = [2.0**power for power in range(LOG_FIRST, LOG_FIRST + LOG_BINS + 1)]
    values = [jnp.square(x) for x in trees.values()]
    for name, x in trees.items():
        if histogram and name != "params":
            size = jnp.abs(x)
            values += [*(size < edge for edge in edges), size == size]  # NaN is below nothing
    sums = sums_of_all(values)
    hits = sums[len(trees) :]
    return jnp.stack(sums[: len(trees)]), jnp.asarray(hits, jnp.int32)


def _magnitude_bin(x: Float[Array, "R ..."]) -> Int[Array, "R ..."]:
    """Returns the bin of each magnitude by powers of two: 0 for zeros, the last for NaNs."""
    bits = jax.lax.bitcast_convert_type(jnp.abs(x), jnp.int32)
    exponent = (bits >> 23) - 127  # of 2^exponent ≤ |x|; −127 for zero, 128 for infinity
    index = jnp.clip(exponent - LOG_FIRST + 1, 0, LOG_BINS + 1)
    return jnp.where(jnp.isnan(x), LOG_BINS + 2, index)
