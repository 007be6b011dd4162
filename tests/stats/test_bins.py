"""Bins of any range: their edges, and the counts of activations against NumPy."""

from functools import cache, partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convjax.stats import forms
from convjax.stats.activations import activation_stats
from convjax.stats.bins import FASTAI, PRESETS, Bins, as_bins

SIZE = 256  # one compiled program for each of these bins

KINDS = {
    "symmetric": PRESETS["symmetric"],
    "fourth": Bins(0.0, 2.0, 4),
    "one": Bins(-1.0, 1.0, 1),
    "tenths": Bins(-0.7, 0.7, 14),
    "thirds": Bins(-1.0, 2.0, 9),
    "far": Bins(1000.0, 1001.0, 40),
    "negative": Bins(-3.3, -0.1, 7),
    "tiny": Bins(-1e-6, 1e-6, 11),
    "large": Bins(-1e30, 3e30, 5),
}
kinds = pytest.mark.parametrize("bins", KINDS.values(), ids=KINDS)


@cache
def compiled(bins):
    return jax.jit(partial(activation_stats, bins=bins))


def statistics(x, bins):
    """Returns SIZE values that repeat x, and their statistics."""
    x = np.resize(np.asarray(x, np.float32), SIZE)
    return x, compiled(bins)(x)


def neighbours(bins):
    """The edges of bins and the float32 numbers beside them; neighbours of 0 are subnormal."""
    edges = [np.float32(edge) for edge in bins.edges]
    found = [np.nextafter(e, np.float32(s)) for e in edges if e for s in (-np.inf, np.inf)]
    special = [np.float32(x) for x in (0.0, -0.0, np.inf, -np.inf, np.nan, 0.05, -0.05)]
    return [*edges, *found, *special]


def numpy_counts(x, bins):
    finite = x[~np.isnan(x)].astype(np.float64)
    inside = np.histogram(finite, bins.edges)[0]
    return [(x < bins.edges[0]).sum(), *inside, (x > bins.edges[-1]).sum()]


def test_bins_edges_by_hand():
    assert FASTAI.edges.tolist() == [i / 4 for i in range(41)]
    symmetric = as_bins("symmetric").edges
    assert symmetric.tolist() == [i / 4 - 5 for i in range(41)]
    assert Bins(-0.3, 0.3, 6).edges[3] == 0  # np.linspace gives 5.6e-17
    np.testing.assert_array_equal(Bins(0.0, 0.3, 3).edges, np.float32([0, 0.1, 0.2, 0.3]))
    assert symmetric.dtype == np.float64


@kinds
def test_bins_edges_increase_from_low_to_high(bins):
    edges = bins.edges
    assert len(edges) == bins.count + 1
    assert (np.diff(edges) > 0).all()
    np.testing.assert_allclose(np.diff(edges), bins.width, rtol=0.1)
    np.testing.assert_allclose(edges[[0, -1]], [bins.low, bins.high], rtol=1e-7)
    np.testing.assert_array_equal(edges, edges.astype(np.float32))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((0.0, 0.0, 4), ValueError, r"high must be above low, got low 0, high 0"),
        ((1.0, -1.0, 4), ValueError, r"high must be above low, got low 1, high -1"),
        ((0.0, np.inf, 4), ValueError, "high must be finite, got inf"),
        ((np.nan, 1.0, 4), ValueError, "low must be finite, got nan"),
        ((0.0, 1.0, 0), ValueError, "count must be at least 1, got 0"),
        ((0.0, 1.0, 2.5), TypeError, "count must be a whole number, got float: 2.5"),
        (("0", 1.0, 4), TypeError, "low must be a number, got str: '0'"),
        ((1e6, 1e6 + 1, 2), ValueError, "bins must be at least 1e-06 of the larger of"),
        ((0.0, 1e39, 2), ValueError, "in the range of float32, got Bins"),
        ((0.0, 1e-40, 1), ValueError, "in the range of float32, got Bins"),
    ],
)
def test_bins_reject(given, error, message):
    with pytest.raises(error, match=message):
        Bins(*given)


def test_as_bins_accepts_presets_and_bins():
    own = Bins(0, 1, 2)
    assert as_bins(own) is own
    assert (type(own.low), own) == (float, Bins(0.0, 1.0, 2))
    assert as_bins("fastai") == Bins(0.0, 10.0, 40)
    message = r"bins must be 'fastai', 'symmetric' or a Bins, got {}. .*convjax\.Bins\(low"
    with pytest.raises(ValueError, match=message.format("'gelu'")):
        as_bins("gelu")
    with pytest.raises(TypeError, match=message.format("int: 40")):
        as_bins(40)


def test_activation_stats_with_other_bins_by_hand():
    inf, nan = np.inf, np.nan
    # 4 bins over 0..2, each holding its lower edge, the last its upper one too.
    x = np.array([-inf, -1, -0.0, 0, 0.49, 0.5, 1.5, 2.0, 2.01, inf, nan], np.float32)
    for shift in (0, 1):
        bins = Bins(0.0 - shift, 2.0 - shift, 4)
        found = activation_stats(x - shift, bins=bins)
        assert (int(found.under), found.hist.tolist(), int(found.over)) == (2, [3, 1, 0, 2], 2)


def test_activation_stats_separates_signs_with_symmetric_bins():
    x = np.array([-1e-10, 0.0, 1e-10, -5.0, 5.0], np.float32)
    hist = activation_stats(x, bins="symmetric").hist
    assert (hist[19], hist[20], hist[0], hist[39]) == (1, 2, 1, 1)


@kinds
def test_activation_stats_counts_edges_and_their_neighbours_like_numpy(bins):
    x, found = statistics(neighbours(bins), bins)
    assert [found.under, *found.hist, found.over] == numpy_counts(x, bins)
    assert {a.dtype for a in (found.under, found.hist, found.over)} == {np.dtype(np.int32)}


def values_around(bins):
    inside = st.floats(float(bins.edges[0]), float(bins.edges[-1]), width=32, allow_subnormal=False)
    anywhere = st.floats(width=32, allow_subnormal=False)
    elements = st.one_of(inside, anywhere, st.sampled_from(neighbours(bins)).map(float))
    return st.tuples(st.just(bins), hnp.arrays(np.float32, 64, elements=elements))


@settings(max_examples=100, deadline=None)  # one compiled program for each kind of bins
@given(st.one_of(*map(values_around, KINDS.values())))
def test_activation_stats_counts_like_numpy(case):
    bins, x = case
    x, found = statistics(x, bins)
    _, fastai = statistics(x, FASTAI)
    assert [found.under, *found.hist, found.over] == numpy_counts(x, bins)
    assert found.under + found.hist.sum() + found.over + np.isnan(x).sum() == SIZE
    # The shares near zero are the same whatever the bins.
    assert (found.near_zero, found.abs_near_zero) == (fastai.near_zero, fastai.abs_near_zero)


bins_of_any_kind = st.builds(
    lambda low, width, count: Bins(low, low + width * count, count),
    st.floats(-100, 100, width=32, allow_subnormal=False),
    st.floats(0.0625, 50, width=32),
    st.integers(1, 60),
)


@settings(max_examples=8, deadline=None)  # each of them compiles
@given(bins=bins_of_any_kind, seed=st.integers(0, 2**32 - 1))
def test_activation_stats_counts_every_value_once(bins, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(bins.low - 1, bins.high + 1, 1000).astype(np.float32)
    x[: bins.count + 1] = bins.edges
    found = activation_stats(x, bins=bins)
    assert [found.under, *found.hist, found.over] == numpy_counts(x, bins)
    assert found.under + found.hist.sum() + found.over == x.size


def test_activation_stats_with_fastai_bins_equals_the_general_count():
    x = np.array(neighbours(FASTAI), np.float32)
    found = activation_stats(x, bins=Bins(0.0, 10.0, 40))
    counts = forms._bin_counts(jax.numpy.asarray(x)[None], FASTAI)[0]
    assert [found.under, *found.hist, found.over] == counts.tolist() == numpy_counts(x, FASTAI)
