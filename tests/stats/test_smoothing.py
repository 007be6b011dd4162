"""The smoothed loss, against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.stats.smoothing import smooth
from tests.stats.record_kinds import RECORD


def test_smooth_by_hand():
    # Weight 1/2: s = 2, 1 + 2 = 3, 1.5 + 4 = 5.5, over 1/2, 3/4 and 7/8. Exact in binary but the
    # divisions.
    found = smooth(np.array([4.0, 4.0, 8.0]), 0.5)
    np.testing.assert_allclose(found, [4, 4, (0.5 * 3 + 4) / 0.875], rtol=1e-15)
    assert smooth(np.array([3.0, 1.0]), 0).tolist() == [3, 1]
    assert smooth(np.array([])).shape == (0,)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    st.floats(0, 0.999),
)
def test_smooth_is_a_weighted_mean_of_the_values_so_far(values, weight):
    found = smooth(np.array(values), weight)
    for i, value in enumerate(found):
        weights = weight ** np.arange(i, -1, -1.0)
        # float64; 1 − weight loses three digits at most.
        expected = np.average(values[: i + 1], weights=weights)
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-6 * 1e-3)


def test_smoothed_loss_has_the_weight_of_fastai():
    np.testing.assert_array_equal(RECORD.smoothed_loss(), smooth(RECORD.loss, 0.98))
    assert RECORD.smoothed_loss()[0] == pytest.approx(RECORD.loss[0], rel=1e-12)


@pytest.mark.parametrize("weight", [1, -0.1, float("nan")])
def test_smooth_rejects_weights(weight):
    with pytest.raises(ValueError, match="weight must be at least 0 and below 1, got"):
        smooth(np.zeros(3), weight)


def test_smooth_recovers_after_values_that_are_not_finite():
    # s = 2, then 1 and 0.5 without a new value, then 0.25 + 4; the weights of the values that are
    # there are 1/2, then 1/16 and 1/2.
    found = smooth(np.array([4.0, np.inf, np.nan, 8.0, -np.inf, 8.0]), 0.5)
    assert found[[0, 1, 4]].tolist() == [4, np.inf, -np.inf]
    assert np.isnan(found[2])
    np.testing.assert_allclose(found[3], (4 / 16 + 8 / 2) / (1 / 16 + 1 / 2), rtol=1e-15)
    np.testing.assert_allclose(
        found[5], (4 / 64 + 8 / 8 + 8 / 2) / (1 / 64 + 1 / 8 + 1 / 2), rtol=1e-15
    )
    assert smooth(np.array([np.nan, 3.0]), 0).tolist()[1] == 3
    np.testing.assert_allclose(smooth(np.array([np.nan] * 900 + [7.0]), 0.9)[-1], 7, rtol=1e-14)


@given(
    st.lists(st.sampled_from([1.0, -3.0, np.nan, np.inf, 1e30]), min_size=1, max_size=40),
    st.lists(st.integers(1, 9), min_size=40, max_size=40),
)
def test_smooth_is_a_weighted_mean_of_the_finite_values(values, counts):
    values, counts = np.array(values), np.array(counts[: len(values)])
    found = smooth(values, 0.8, counts)
    np.testing.assert_array_equal(found[~np.isfinite(values)], values[~np.isfinite(values)])
    for i in np.flatnonzero(np.isfinite(values)):
        done = np.cumsum(counts[: i + 1])
        of_each = 0.8 ** (done[-1] - done) * (1 - 0.8 ** counts[: i + 1])
        there = np.isfinite(values[: i + 1])
        wanted = np.average(values[: i + 1][there], weights=of_each[there])
        # float64; a value of 1e30 hides the others.
        np.testing.assert_allclose(found[i], wanted, rtol=1e-9, atol=1e-9 * max(1, abs(wanted)))


def test_smooth_counts_every_step_of_a_row():
    flat = np.repeat([3.0, 1.0], 4)
    np.testing.assert_allclose(
        smooth(np.array([3.0, 1.0]), 0.9, counts=np.array([4, 4])), smooth(flat, 0.9)[[3, 7]]
    )
