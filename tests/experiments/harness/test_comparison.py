import pytest

from convjax.chapter.setting import BATCH_NORM, ONE_CYCLE, Setting
from convjax.chapter.training import Outcome
from experiments.harness.comparison import (
    HIGH_RATES,
    RATES,
    TUNING_SEEDS,
    accuracies,
    accuracy_by_rate,
    at_best,
    first_training_rate,
    gaps,
    higher,
    highest_rate,
    larger,
    tuned,
)


def outcome(setting, seed, accuracy, steps=10):
    row = {"accuracy": accuracy, "train_accuracy": 1.0, "step": steps}
    return Outcome(setting, seed, [row])


class FakeLab:
    """Trains nothing: the accuracy is a function of the setting and the seed."""

    def __init__(self, accuracy, quick=False):
        self.accuracy, self.quick, self.asked, self.pictures = accuracy, quick, [], []

    def picture(self, name, figure):
        self.pictures.append(name)

    seeds = (0, 1)

    def outcomes(self, setting, seeds):
        return self.sweep([setting], seeds)[0]

    def sweep(self, settings, seeds=(0, 1)):
        self.asked += [(setting, tuple(seeds)) for setting in settings]
        return [
            [outcome(setting, seed, self.accuracy(setting, seed)) for seed in seeds]
            for setting in settings
        ]


def test_tuned_takes_the_best_mean_over_the_tuning_seeds():
    # 0.1 is best on average; 0.3 is best in one seed only.
    table = {0.1: (0.8, 0.8, 0.8), 0.3: (0.99, 0.1, 0.1)}
    lab = FakeLab(lambda s, seed: table.get(s.lr_max, (0.5,) * 3)[TUNING_SEEDS.index(seed)])
    best = tuned(lab, BATCH_NORM)
    assert best == Setting(norm="batch", batch_size=512, schedule="one-cycle", lr_max=0.1)
    assert [(s.lr_max, seeds) for s, seeds in lab.asked] == [(r, TUNING_SEEDS) for r in RATES]
    assert not set(TUNING_SEEDS) & set(range(100))  # never the measured seeds


def test_tuned_returns_the_setting_of_a_quick_run_unchanged():
    lab = FakeLab(lambda s, seed: 0.5, quick=True)
    assert tuned(lab, ONE_CYCLE) == ONE_CYCLE
    assert lab.asked == []


@pytest.mark.parametrize(
    ("first", "holds"), [([3, 4, 3.5], True), ([0, 1, 0.5], False), ([0, 2, 4], None)]
)
def test_larger_decides_by_the_interval(first, holds):
    rule = larger("a", "b", "a − b")
    decision = rule.decide({"a": first, "b": [2, 2.5, 2.2]})
    assert decision.holds is holds
    assert decision.reason.startswith("a − b: ")
    assert rule.min_seeds == 5


def test_accuracies_and_gaps_are_those_at_the_end():
    setting = Setting()
    early = Outcome(setting, 0, [{"accuracy": 0.1}, {"accuracy": 0.7, "train_accuracy": 0.9}])
    found = [early, outcome(setting, 1, 0.8)]
    assert accuracies(found) == [0.7, 0.8]
    assert gaps(found) == pytest.approx([0.2, 0.2])


def test_at_best_measures_every_side_at_its_best_rate():
    best = {None: 0.03, "batch": 0.3}
    lab = FakeLab(lambda setting, seed: 1 - abs(setting.lr_max - best[setting.norm]) - seed / 1000)
    outcomes, figures = at_best(lab, {"plain": ONE_CYCLE, "norm": BATCH_NORM}, "both")
    assert {name: found[0].setting.lr_max for name, found in outcomes.items()} == {
        "plain": 0.03,
        "norm": 0.3,
    }
    assert (figures["rate_plain"], figures["rate_norm"]) == ([0.03], [0.3])
    assert figures["accuracy_plain"] == figures["accuracy_norm"] == [1.0, 0.999]
    assert lab.pictures == ["both"]


def test_accuracy_by_rate_tries_two_rates_in_a_quick_run():
    lab = FakeLab(lambda setting, seed: setting.lr_max + seed)
    curve = accuracy_by_rate(lab, ONE_CYCLE)
    assert tuple(curve) == HIGH_RATES
    assert curve[0.2] == [0.2, 1.2]
    assert len(accuracy_by_rate(FakeLab(lab.accuracy, quick=True), ONE_CYCLE)) == 2


@pytest.mark.parametrize(
    ("limit", "rate", "trainings"),
    # Rates are dropped at the first seed that fails: seed 0, or seed 1 where only that one fails.
    [
        ({0: 0.1, 1: 0.1}, 0.1, [(2.0, 0), (1.0, 0), (0.1, 0), (0.1, 1)]),
        ({0: 5.0, 1: 1.0}, 1.0, [(2.0, 0), (2.0, 1), (1.0, 0), (1.0, 1)]),
        ({0: 5.0, 1: 0.0}, 0.0, [(r, s) for r in (2.0, 1.0, 0.1) for s in (0, 1)]),
    ],
)
def test_first_training_rate_by_hand(limit, rate, trainings):
    lab = FakeLab(lambda setting, seed: 0.95 if setting.lr_max <= limit[seed] else 0.1)
    found, tried = first_training_rate(lab, ONE_CYCLE, (2.0, 1.0, 0.1))
    assert found == rate
    assert [(s.lr_max, *seeds) for s, seeds in lab.asked] == trainings
    assert list(tried) == list(dict.fromkeys(rate for rate, _ in trainings))
    assert tried[trainings[-1][0]][-1] == (0.95 if rate else 0.1)


def test_first_training_rate_is_the_highest_rate_from_the_top():
    lab = FakeLab(lambda setting, seed: 0.95 if setting.lr_max <= 0.2 - 0.1 * seed else 0.1)
    found, _ = first_training_rate(lab, ONE_CYCLE, HIGH_RATES[::-1])
    assert found == highest_rate(accuracy_by_rate(lab, ONE_CYCLE)) == 0.1


def test_highest_rate_needs_every_seed_to_train():
    assert highest_rate({0.1: [0.95, 0.96], 0.2: [0.97, 0.9], 0.5: [0.99, 0.89]}) == 0.2
    assert highest_rate({0.1: [0.2]}) == 0


def test_higher_is_undecided_at_the_highest_rate_tried():
    assert higher(0.2, than=0.1) is True
    assert higher(0.1, than=0.1) is False
    assert higher(HIGH_RATES[-1], than=0.1) is True
    assert higher(HIGH_RATES[-1], than=HIGH_RATES[-1]) is None
