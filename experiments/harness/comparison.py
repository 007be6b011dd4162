"""Fair comparisons: rates are tuned on separate seeds, differences have intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from convjax.chapter.setting import Setting
from convjax.chapter.training import Outcome
from experiments.harness import charts
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import SHORT, Decision, Measured, Rule, over_seeds

# Never among the measured seeds, so that no side is tuned on the figures that decide.
TUNING_SEEDS = (100, 101, 102)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)

# A network trains where it reaches this accuracy; trainings that fail stay near 0.1.
TRAINS = 0.9
HIGH_RATES = (0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0)


def tuned(lab: Lab, setting: Setting, rates: Sequence[float] = RATES) -> Setting:
    """Returns the setting with the rate of the highest mean accuracy over TUNING_SEEDS.

    A quick run returns the setting unchanged.
    """
    return tuned_sides(lab, {"": setting}, rates)[""]


def tuned_sides(
    lab: Lab,
    settings: Mapping[str, Setting],
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = TUNING_SEEDS,
) -> dict[str, Setting]:
    """Returns each setting with its best rate, see `tuned`.

    All sides of a comparison are tuned over the same rates with the same seeds.
    """
    if lab.quick:
        return dict(settings)
    tried = {
        name: [replace(setting, lr_max=rate) for rate in rates]
        for name, setting in settings.items()
    }
    found = iter(lab.sweep([s for candidates in tried.values() for s in candidates], seeds))
    best = {}
    for name, candidates in tried.items():
        means = [np.mean(accuracies(next(found))) for _ in candidates]
        best[name] = candidates[int(np.argmax(means))]
    return best


def accuracies(outcomes: Sequence[Outcome]) -> list[float]:
    """Returns the final test accuracy of each outcome."""
    return [outcome.accuracy for outcome in outcomes]


def gaps(outcomes: Sequence[Outcome]) -> list[float]:
    """Returns training accuracy − test accuracy at the end, for each outcome."""
    return [outcome.train_accuracy - outcome.accuracy for outcome in outcomes]


def at_best(
    lab: Lab,
    settings: Mapping[str, Setting],
    picture: str | None = None,
    *,
    rates: Sequence[float] = RATES,
    tuning_seeds: Sequence[int] = TUNING_SEEDS,
) -> tuple[dict[str, list[Outcome]], dict[str, list[float]]]:
    """Trains each setting at its tuned rate.

    Args:
      lab: runs the trainings.
      settings: the sides of the comparison by name.
      picture: name of a picture of the accuracies, which compares all sides with the first.
      rates, tuning_seeds: of which each side has the rate with the highest mean accuracy.

    Returns:
      The outcomes by name, and the figures accuracy_NAME and rate_NAME of all names.
    """
    best = tuned_sides(lab, settings, rates, tuning_seeds)
    outcomes = dict(zip(best, lab.sweep(list(best.values())), strict=True))
    if picture:
        sides = {name: accuracies(found) for name, found in outcomes.items()}
        lab.picture(picture, charts.sides(sides, "test accuracy"))
    return outcomes, figures_of(best, outcomes)


def figures_of(
    settings: Mapping[str, Setting], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, list[float]]:
    """Returns the figures accuracy_NAME and rate_NAME of all names."""
    return {
        **{f"accuracy_{name}": accuracies(found) for name, found in outcomes.items()},
        **{f"rate_{name}": [setting.lr_max] for name, setting in settings.items()},
    }


def accuracy_by_rate(lab: Lab, setting: Setting) -> dict[float, list[float]]:
    """Returns the accuracies of the seeds by rate, for HIGH_RATES; a quick run tries two."""
    rates = HIGH_RATES[:2] if lab.quick else HIGH_RATES
    found = lab.sweep([replace(setting, lr_max=rate) for rate in rates])
    return dict(zip(rates, map(accuracies, found), strict=True))


def first_training_rate(
    lab: Lab, setting: Setting, rates: Sequence[float]
) -> tuple[float, dict[float, list[float]]]:
    """Returns the first of the rates at which every seed trains, 0 if there is none.

    A rate is dropped at the first seed that fails, and later rates are not tried.

    Args:
      lab: runs the trainings.
      setting: trained at each rate.
      rates: in the order in which they are tried.

    Returns:
      The rate, and the accuracies of the trainings that were needed by rate.
    """
    tried: dict[float, list[float]] = {}
    for rate in rates:
        tried[rate] = []
        for seed in lab.seeds:
            tried[rate] += accuracies(lab.outcomes(replace(setting, lr_max=rate), [seed]))
            if tried[rate][-1] < TRAINS:
                break
        else:
            return rate, tried
    return 0.0, tried


def highest_rate(curve: Mapping[float, Sequence[float]]) -> float:
    """Returns the highest rate at which every seed trains, 0 if there is none."""
    return max((rate for rate, of_seeds in curve.items() if min(of_seeds) >= TRAINS), default=0.0)


def higher(rate: float, than: float) -> bool | None:
    """Whether one highest rate exceeds another; None if both are the highest that was tried."""
    return None if rate == than == HIGH_RATES[-1] else rate > than


def larger(first: str, second: str, what: str) -> Rule:
    """Returns a rule: one metric is larger than another on average over the seeds.

    The claim is reproduced if the whole interval of the difference lies above 0, refuted if it lies
    below, and undecided if it contains 0.

    Args:
      first, second: names of the metrics.
      what: names the difference in the reason, such as "batch norm − none".
    """

    def decide(measured: Measured) -> Decision:
        found = difference(measured[first], measured[second])
        short = f"{what}: {found.mean:+.4f}"
        if len(short) > SHORT:
            short = f"{found.mean:+.4f} on average"
        return Decision(found.above_zero, f"{what}: {found}", short)

    text = f"95 % interval of the mean of {first} − {second} over the seeds lies above 0"
    return over_seeds(text, decide)
