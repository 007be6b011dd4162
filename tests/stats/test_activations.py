from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convjax.stats import activations as library
from convjax.stats import forms
from convjax.stats.activations import activation_stats
from convjax.stats.bins import FASTAI
from convjax.stats.forms import NEAR_ZERO

# One compiled program for all examples of a property: every array is filled up to this size.
SIZE = 64
stats = jax.jit(activation_stats)
without_histogram = partial(activation_stats, histogram=False)
FUNCTIONS = {"full": activation_stats, "bare": without_histogram}

FORMS = {"cpu": forms.by_groups, "cuda": forms.by_stacking, "tpu": forms.on_own_axes}
each_form = pytest.mark.parametrize("platform", FORMS)


@cache
def compiled(platform, name):
    """One of FUNCTIONS for SIZE values, in a platform's form, compiled for this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "rows_of", FORMS[platform])
        function = FUNCTIONS[name]
        traced = jax.jit(lambda x: function(x)).trace(jax.ShapeDtypeStruct((SIZE,), np.float32))
    return traced.lower().compile()


# No subnormal numbers: XLA flushes them to zero on CPU, NumPy does not.
floats = st.floats(width=32, allow_subnormal=False)
edges = st.sampled_from([float(edge) for edge in np.linspace(-1, 11, 49)])
neighbours = st.builds(
    lambda edge, up: float(np.nextafter(np.float32(edge), np.float32(99 if up else -99))),
    edges.filter(bool),  # the neighbours of 0 are subnormal
    st.booleans(),
)

thresholds = [-0.05, 0.05, 0.25, 10.0]
around_thresholds = st.sampled_from(
    [np.float32(x) for x in (*thresholds, 0.0, -0.0, np.inf, -np.inf, np.nan)]
    + [np.nextafter(np.float32(x), np.float32(side)) for x in thresholds for side in (-99, 99)]
).map(float)


def arrays(elements):
    return hnp.arrays(np.float32, SIZE, elements=elements)


def expected_counts(x):
    inside = np.histogram(x[~np.isnan(x)], FASTAI.count, (FASTAI.low, FASTAI.high))[0]
    return [(x < 0).sum(), *inside, (x > 10).sum()]


def test_activation_stats_by_hand():
    found = stats(np.array([[-3.0, 0.05], [0.0625, 1.0], [-0.05, 12.0]], np.float32))
    # Sum 10.0625; near zero, without absolute value: −3, 0.05, −0.05; with it: 0.05 and −0.05.
    assert float(found.mean) == pytest.approx(10.0625 / 6, rel=1e-6)
    assert float(found.near_zero) == 0.5
    assert float(found.abs_near_zero) == pytest.approx(2 / 6, rel=1e-6)
    assert (int(found.under), int(found.over)) == (2, 1)
    assert found.hist.tolist() == [2, 0, 0, 0, 1] + [0] * 35
    # 0 and 2: the unbiased variance is 2, the biased one 1. A few float32 operations.
    assert float(stats(np.array([0.0, 2.0], np.float32)).std) == pytest.approx(2**0.5, rel=1e-6)
    assert float(stats(np.array([5.0], np.float32)).std) == 0


def test_activation_stats_near_zero_includes_the_threshold_and_negative_numbers():
    assert NEAR_ZERO == 0.05
    at = np.float32(0.05)
    x = np.array([at, np.nextafter(at, np.float32(1)), -1e30, -np.inf], np.float32)
    found = stats(x)
    assert float(found.near_zero) == 0.75
    assert float(found.abs_near_zero) == 0.25


def test_activation_stats_counts_no_nan():
    found = stats(np.array([np.nan, 1.0, -1.0, np.nan], np.float32))
    assert np.isnan(found.mean)
    assert np.isnan(found.std)
    assert float(found.near_zero) == float(found.abs_near_zero) + 0.25 == 0.25
    assert int(found.hist.sum() + found.under + found.over) == 2


@settings(max_examples=100, deadline=None)  # one compiled program
@given(arrays(st.floats(-100, 100, width=32, allow_subnormal=False)))
def test_activation_stats_agrees_with_numpy(x):
    found = stats(x)
    exact = x.astype(np.float64)
    # 64 float32 numbers up to 100: sums round at 1e-7 of 100 each; of the deviation that is a
    # relative error and, where all are nearly equal, the rounding of the mean.
    np.testing.assert_allclose(found.mean, exact.mean(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.std, exact.std(ddof=1), rtol=1e-5, atol=1e-4)
    assert float(found.near_zero) * SIZE == (x <= np.float32(0.05)).sum()
    assert float(found.abs_near_zero) * SIZE == (np.abs(x) <= np.float32(0.05)).sum()
    assert [found.under, *found.hist, found.over] == expected_counts(x)


# Each value with the shares x <= 0.05 and |x| <= 0.05 and the count that it is in.
UNDER, OVER, NOWHERE = -1, FASTAI.count, None
PLACES = [
    (-np.inf, 1, 0, UNDER),
    (-1, 1, 0, UNDER),
    (np.nextafter(np.float32(-0.05), np.float32(-1)), 1, 0, UNDER),
    (-0.05, 1, 1, UNDER),
    (np.nextafter(np.float32(-0.05), np.float32(1)), 1, 1, UNDER),
    (-np.finfo(np.float32).tiny, 1, 1, UNDER),
    (-0.0, 1, 1, 0),
    (0.0, 1, 1, 0),
    (np.finfo(np.float32).tiny, 1, 1, 0),
    (np.nextafter(np.float32(0.05), np.float32(-1)), 1, 1, 0),
    (0.05, 1, 1, 0),
    (np.nextafter(np.float32(0.05), np.float32(1)), 0, 0, 0),
    (np.nextafter(np.float32(0.25), np.float32(-1)), 0, 0, 0),
    (0.25, 0, 0, 1),
    (np.nextafter(np.float32(0.25), np.float32(1)), 0, 0, 1),
    (np.nextafter(np.float32(10), np.float32(-1)), 0, 0, 39),
    (10.0, 0, 0, 39),
    (np.nextafter(np.float32(10), np.float32(99)), 0, 0, OVER),
    (np.inf, 0, 0, OVER),
    (np.nan, 0, 0, NOWHERE),
]


@each_form
def test_activation_stats_counts_each_value_once(platform):
    for value, near_zero, abs_near_zero, place in PLACES:
        # All values of one batch are the same: shares are 0 or 1, counts 0 or SIZE.
        found = compiled(platform, "full")(np.full(SIZE, value, np.float32))
        wanted = [SIZE if i == place else 0 for i in range(UNDER, OVER + 1)]
        assert [found.under, *found.hist, found.over] == wanted, value
        assert (found.near_zero, found.abs_near_zero) == (near_zero, abs_near_zero), value
        assert {found.hist.dtype, found.under.dtype, found.over.dtype} == {np.dtype(np.int32)}
        assert found.hist.shape == (FASTAI.count,)


def test_each_platform_has_its_form():
    # Otherwise the tests above would check forms that no program has.
    traced = jax.jit(activation_stats).trace(jax.ShapeDtypeStruct((SIZE,), np.float32))
    texts = {
        name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda", "tpu")
    }
    assert len(set(texts.values())) == 3
    assert "stablehlo.scatter" in texts["cpu"]
    assert not any("stablehlo.scatter" in texts[name] for name in ("cuda", "tpu"))


@each_form
@settings(max_examples=200, deadline=None)  # one compiled program
@given(x=arrays(st.one_of(floats, edges, neighbours, around_thresholds)))
def test_activation_stats_counts_and_shares_equal_numpy(platform, x):
    found, bare = compiled(platform, "full")(x), compiled(platform, "bare")(x)
    assert [found.under, *found.hist, found.over] == expected_counts(x)
    # Of a power of two of values: exact.
    near_zero = (x <= np.float32(0.05)).mean()
    abs_near_zero = (np.abs(x) <= np.float32(0.05)).mean()
    assert (found.near_zero, found.abs_near_zero) == (near_zero, abs_near_zero)
    assert (bare.near_zero, bare.abs_near_zero) == (near_zero, abs_near_zero)
    assert (bare.hist, bare.under, bare.over) == (None, None, None)


@settings(max_examples=50, deadline=None)  # one compiled program
@given(x=arrays(st.one_of(st.floats(-100, 100, width=32, allow_subnormal=False), st.just(np.nan))))
def test_activation_stats_mean_and_std_without_histogram(x):
    found, bare = compiled("cpu", "full")(x), compiled("cpu", "bare")(x)
    # Another program, which may add the 64 float32 numbers up to 100 in another order.
    np.testing.assert_allclose(bare.mean, found.mean, rtol=0, atol=1e-4)
    np.testing.assert_allclose(bare.std, found.std, rtol=1e-5, atol=1e-4)


def test_activation_stats_shares_of_any_size():
    x = np.random.default_rng(0).standard_normal((7, 13)).astype(np.float32) / 10
    found, bare = stats(x), without_histogram(x)
    # One rounding of an exact quotient.
    share = np.float32((x <= 0.05).sum()) / np.float32(91)
    assert found.near_zero == bare.near_zero == share
    assert found.abs_near_zero == bare.abs_near_zero < share


@settings(max_examples=30, deadline=None)  # one compiled program
@given(arrays(st.floats(0, 1, width=32, allow_subnormal=False)), st.permutations(range(SIZE)))
def test_activation_stats_does_not_depend_on_order_or_shape(x, order):
    one, other = stats(x), jax.jit(activation_stats)(x[list(order)].reshape(4, 16))
    assert one.hist.tolist() == other.hist.tolist()
    assert float(one.near_zero) == float(other.near_zero)
    # Another order of summing 64 float32 numbers up to 1.
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-6)
    np.testing.assert_allclose(one.std, other.std, atol=1e-6)


def test_activation_stats_std_with_a_large_mean():
    x = (1e4 + np.random.default_rng(0).standard_normal(4096)).astype(np.float32)
    # In one pass, E[x²] − E[x]² would be 1e8 − 1e8 in float32, which has no digit left.
    np.testing.assert_allclose(stats(x).std, x.astype(np.float64).std(ddof=1), rtol=1e-4)


def test_activation_stats_counts_more_values_than_float32():
    # Adding ones in float32 stops at 2²⁴, and float32 does not have this odd number.
    x = jnp.zeros(2**24 + 3, jnp.float32)
    found = stats(x)
    assert float(found.near_zero) == 1
    assert int(found.hist[0]) == x.size


def test_activation_stats_adds_integers_beyond_float32():
    # Traced only, so that nothing of this size is allocated: the dtypes of the four sums, of mean,
    # std, and both shares.
    def sums(size):
        settings = {"histogram": False, "bins": FASTAI}
        traced = jax.jit(lambda x: forms.by_groups([x], (None,), **settings)).trace(
            jax.ShapeDtypeStruct((size,), np.float32)
        )
        (group,) = (e for e in traced.jaxpr.eqns if "jaxpr" in e.params)
        every = group.params["jaxpr"].jaxpr.eqns
        added = [eqn.invars[0].aval for eqn in every if eqn.primitive.name == "reduce_sum"]
        return [str(values.dtype) for values in added]

    assert sums(2**24) == ["float32"] * 4
    assert sums(2**24 + 1) == ["float32"] * 2 + ["int32"] * 2


def test_activation_stats_casts_float64_to_float32(x64):
    # 0.05 in float64 lies below 0.05 in float32, and this number between them.
    between = 0.0500000005
    assert 0.05 < between < float(np.float32(0.05))
    # As float32 it is 0.05 in float32: near zero; so is a number just below an edge.
    found = stats(np.array([between, 0.25 - 1e-12], np.float64))
    assert float(found.near_zero) == 0.5
    assert found.hist[:2].tolist() == [1, 1]
    assert found.mean.dtype == found.std.dtype == np.float32
    bare = without_histogram(np.array([between, 0.25 - 1e-12], np.float64))
    assert float(bare.near_zero) == float(bare.abs_near_zero) == 0.5
    assert {array.dtype for array in bare[:4]} == {np.dtype(np.float32)}


@pytest.mark.parametrize("histogram", [True, False])
def test_activation_stats_has_no_gradient(histogram):
    def through(x):
        found = activation_stats(x, histogram=histogram)
        return sum(jnp.sum(array) for array in jax.tree.leaves(found))

    assert not jax.grad(through)(np.arange(4.0, dtype=np.float32)).any()
