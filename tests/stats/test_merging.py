"""Statistics of parts of a batch that are merged, against those of the whole batch."""

import math
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convjax.stats.activations import activation_stats
from convjax.stats.merging import merge_parts

# One compiled program per size of a part.
SIZE = 64
stats = jax.jit(activation_stats)
without_histogram = partial(activation_stats, histogram=False)

thresholds = [np.float32(x) for x in (-0.05, 0.0, 0.05, 0.25, 10.0)]
around_thresholds = st.sampled_from(
    [
        *thresholds,
        *(np.nextafter(x, np.float32(side)) for x in thresholds if x for side in (-99, 99)),
        np.float32(np.inf),
        np.float32(np.nan),
    ]
).map(float)


def arrays(elements):
    return hnp.arrays(np.float32, SIZE, elements=elements)


def merged(x, parts, histogram=True):
    """Statistics of each part of x, stacked as arrays of NumPy, merged."""
    of_one = stats if histogram else without_histogram
    of_parts = [of_one(part) for part in np.split(x, parts)]
    return merge_parts(jax.tree.map(lambda *a: np.stack(a), *of_parts), x.size // parts)


def test_merge_parts_by_hand():
    # 1, 3 and 5, 7: each part has the std √2; the whole has the variance (9 + 1 + 1 + 9)/3.
    found = merged(np.array([1, 3, 5, 7], np.float32), 2)
    assert float(found.mean) == 4
    assert float(found.std) == pytest.approx(math.sqrt(20 / 3), rel=1e-6)
    assert found.hist.nonzero()[0].tolist() == [4, 12, 20, 28]
    assert found.hist.sum() == 4


@settings(max_examples=100, deadline=None)
@given(
    x=arrays(st.one_of(st.floats(-100, 100, width=32, allow_subnormal=False), around_thresholds)),
    parts=st.sampled_from([1, 2, 8]),
)
def test_merge_parts_equals_the_whole(x, parts):
    found, wanted = merged(x, parts), stats(x)
    for name in ("near_zero", "abs_near_zero", "hist", "under", "over"):  # shares are n/64 here
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    # Another order of summing float32 numbers up to 100.
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found.std, wanted.std, rtol=1e-5, atol=2e-4)


def test_merge_parts_shares_of_any_size():
    x = np.random.default_rng(0).standard_normal(3 * 91).astype(np.float32) / 10
    found, bare, wanted = merged(x, 3), merged(x, 3, histogram=False), stats(x)
    for name in ("near_zero", "abs_near_zero"):
        share = getattr(found, name)
        assert share == getattr(bare, name)
        # Roundings of float32: of each part's share, of their mean, and of the whole's.
        np.testing.assert_allclose(share, getattr(wanted, name), rtol=2e-7)
    assert (bare.hist, bare.under, bare.over) == (None, None, None)


def test_merge_parts_keeps_rows_apart():
    # Two parts of two rows, one row per step; no value is finite in the second row.
    rows = np.array([[[1, 2], [np.inf, 0]], [[3, 4], [-np.inf, 0]]], np.float32)
    of_parts = jax.vmap(jax.vmap(activation_stats))(rows)
    found = merge_parts(jax.tree.map(np.asarray, of_parts), 2)
    assert found.mean[0] == 2.5
    assert np.isnan(found.mean[1])
    assert found.hist.sum(1).tolist() == [4, 2]
    assert [found.under.tolist(), found.over.tolist()] == [[0, 1], [0, 1]]
