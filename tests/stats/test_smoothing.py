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


def test_smooth_counts_every_step_of_a_row():
    flat = np.repeat([3.0, 1.0], 4)
    np.testing.assert_allclose(
        smooth(np.array([3.0, 1.0]), 0.9, counts=np.array([4, 4])), smooth(flat, 0.9)[[3, 7]]
    )
