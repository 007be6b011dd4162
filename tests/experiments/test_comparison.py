import numpy as np
import pytest

from experiments.comparison import (
    RATES,
    TUNING_SEEDS,
    accuracies,
    difference,
    larger,
    spread_figure,
    tuned,
)
from experiments.setting import BATCH_NORM, ONE_CYCLE, Setting
from experiments.training import Outcome


def outcome(setting, seed, accuracy, steps=10):
    return Outcome(setting, seed, [{"accuracy": accuracy, "step": steps}], train_accuracy=1.0)


class FakeLab:
    """Trains in no time: the accuracy is a function of the setting and the seed."""

    def __init__(self, accuracy, quick=False):
        self.accuracy, self.quick, self.asked = accuracy, quick, []

    def outcomes(self, setting, seeds):
        self.asked.append((setting, tuple(seeds)))
        return [outcome(setting, seed, self.accuracy(setting, seed)) for seed in seeds]


def test_tuning_takes_the_best_mean_over_its_own_seeds():
    # 0.1 is best on average; 0.3 in one seed alone.
    table = {0.1: (0.8, 0.8, 0.8), 0.3: (0.99, 0.1, 0.1)}
    lab = FakeLab(lambda s, seed: table.get(s.lr_max, (0.5,) * 3)[TUNING_SEEDS.index(seed)])
    best = tuned(lab, BATCH_NORM)
    assert best == Setting(norm="batch", batch_size=512, schedule="one-cycle", lr_max=0.1)
    assert [(s.lr_max, seeds) for s, seeds in lab.asked] == [(r, TUNING_SEEDS) for r in RATES]
    assert not set(TUNING_SEEDS) & set(range(100))  # never those that decide


def test_a_quick_run_tunes_nothing():
    lab = FakeLab(lambda s, seed: 0.5, quick=True)
    assert tuned(lab, ONE_CYCLE) == ONE_CYCLE
    assert lab.asked == []


def test_the_interval_by_hand():
    # Differences 1, 2, 3: mean 2, standard deviation 1, and t at 97.5 % for two degrees of freedom
    # is 4.302653 (any table): 4.302653/√3 = 2.484138.
    found = difference([2, 4, 6], [1, 2, 3])
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found.high == pytest.approx(2 + 2.484138, abs=1e-6)
    assert str(found) == "+2.0000 (95 % from -0.4841 to +4.4841)"


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 1.0, (2000, 5))
    held = [(i := difference(row, np.zeros(5))).low <= 0.3 <= i.high for row in draws]
    # 95 % of 2,000, within four standard deviations of a binomial share: √(0.95·0.05/2000) = 0.005.
    assert abs(np.mean(held) - 0.95) < 0.02


def test_an_interval_needs_two_seeds():
    with pytest.raises(ValueError, match="two seeds or more, got 1"):
        difference([1.0], [2.0])


@pytest.mark.parametrize(
    ("first", "holds"), [([3, 4, 3.5], True), ([0, 1, 0.5], False), ([0, 2, 4], None)]
)
def test_larger_decides_by_the_interval(first, holds):
    rule = larger("a", "b", "a − b")
    decision = rule.decide({"a": first, "b": [2, 2.5, 2.2]})
    assert decision.holds is holds
    assert decision.reason.startswith("a − b: ")
    assert rule.min_seeds == 5


def test_accuracies_are_those_at_the_end():
    setting = Setting()
    early = Outcome(setting, 0, [{"accuracy": 0.1}, {"accuracy": 0.7}], 0.9)
    assert accuracies([early, outcome(setting, 1, 0.8)]) == [0.7, 0.8]


def test_the_figure_shows_every_seed_and_the_means():
    curves = {"plain": [[0.1, 0.3], [0.5, 0.7]], "norm": [[0.8], [0.9]]}
    figure = spread_figure([0.01, 0.1], curves, xlabel="rate", ylabel="accuracy")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "norm"]
    lines = [line.get_ydata().tolist() for line in axes.get_lines()]
    assert lines == [[0.2, 0.6], [0.1, 0.3], [0.5, 0.7], [0.8, 0.9], [0.8], [0.9]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
