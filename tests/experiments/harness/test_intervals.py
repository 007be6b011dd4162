import numpy as np
import pytest

from experiments.harness.intervals import difference


def test_difference_by_hand():
    # Differences 1, 2, 3: mean 2, standard deviation 1, and t at 97.5 % for two degrees of freedom
    # is 4.302653 (any table): 4.302653/√3 = 2.484138.
    found = difference([2, 4, 6], [1, 2, 3])
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert str(found) == "+2.0000 (95 % from -0.4841 to +4.4841)"


def test_difference_covers_the_true_mean_in_95_percent():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 1.0, (2000, 5))
    held = [(i := difference(row, np.zeros(5))).low <= 0.3 <= i.high for row in draws]
    # 95 % of 2,000, within four standard deviations of a binomial share: √(0.95·0.05/2000) = 0.005.
    assert abs(np.mean(held) - 0.95) < 0.02


def test_difference_rejects_a_single_seed():
    with pytest.raises(ValueError, match="two seeds or more, got 1"):
        difference([1.0], [2.0])


@pytest.mark.parametrize(
    ("first", "sign"), [([3, 4, 3.5], True), ([0, 1, 0.5], False), ([0, 2, 4], None)]
)
def test_interval_above_zero_is_none_if_it_contains_zero(first, sign):
    assert difference(first, [2, 2.5, 2.2]).above_zero is sign


def test_interval_above_zero_is_none_if_not_finite():
    assert difference([1.0, float("nan")], [0.0, 0.0]).above_zero is None


def test_difference_rejects_different_numbers_of_seeds():
    with pytest.raises(ValueError, match="a value for each seed, got 3 and 1"):
        difference([1, 2, 3], [1])


def test_interval_text_rounds_to_digits():
    assert difference([20, 40, 60], [10, 20, 30]).text(0) == "+20 (95 % from -5 to +45)"
