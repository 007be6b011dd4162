"""Fair comparisons: rates tuned on seeds of their own, differences with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from experiments.harness import charts
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, Rule, over_seeds
from experiments.harness.setting import Setting
from experiments.harness.training import Outcome

# Never among the seeds that are measured, so that no side is tuned on what decides.
TUNING_SEEDS = (100, 101, 102)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)

# A training counts as one from this accuracy on; those that fail stay near 0.1.
TRAINS = 0.9
HIGH_RATES = (0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0)


def tuned(lab: Lab, setting: Setting, rates: Sequence[float] = RATES) -> Setting:
    """Returns the setting with that one of the rates whose mean accuracy is highest.

    A quick run takes the setting as it is.
    """
    return tuned_sides(lab, {"": setting}, rates)[""]


def tuned_sides(
    lab: Lab, settings: Mapping[str, Setting], rates: Sequence[float] = RATES
) -> dict[str, Setting]:
    """Returns each setting with the best rate for it, see `tuned`.

    Every side of a comparison is tuned over the same rates with the same seeds.
    """
    if lab.quick:
        return dict(settings)
    tried = {
        name: [replace(setting, lr_max=rate) for rate in rates]
        for name, setting in settings.items()
    }
    found = iter(lab.sweep([s for candidates in tried.values() for s in candidates], TUNING_SEEDS))
    best = {}
    for name, candidates in tried.items():
        means = [np.mean(accuracies(next(found))) for _ in candidates]
        best[name] = candidates[int(np.argmax(means))]
    return best


def accuracies(outcomes: Sequence[Outcome]) -> list[float]:
    """Returns the final test accuracy of each."""
    return [outcome.accuracy for outcome in outcomes]


def gaps(outcomes: Sequence[Outcome]) -> list[float]:
    """Returns by how much the accuracy on the training images exceeds that on the test images."""
    return [outcome.train_accuracy - outcome.accuracy for outcome in outcomes]


def at_best(
    lab: Lab, settings: Mapping[str, Setting], picture: str | None = None
) -> tuple[dict[str, list[Outcome]], dict[str, list[float]]]:
    """Trains each setting at its tuned rate.

    Args:
      picture: the name of a picture of the accuracies, which compares all sides with the first.

    Returns:
      The outcomes by name, and the figures accuracy_NAME and rate_NAME of all names.
    """
    best = tuned_sides(lab, settings)
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
    """Returns for each of HIGH_RATES the accuracies of the seeds; a quick run tries two."""
    rates = HIGH_RATES[:2] if lab.quick else HIGH_RATES
    found = lab.sweep([replace(setting, lr_max=rate) for rate in rates])
    return dict(zip(rates, map(accuracies, found), strict=True))


def highest_rate(curve: Mapping[float, Sequence[float]]) -> float:
    """Returns the highest rate at which every seed trains, 0 where there is none."""
    return max((rate for rate, of_seeds in curve.items() if min(of_seeds) >= TRAINS), default=0.0)


def higher(rate: float, than: float) -> bool | None:
    """Tells whether a highest rate is higher; None where both are the highest that was tried."""
    return None if rate == than == HIGH_RATES[-1] else rate > than


def larger(first: str, second: str, what: str) -> Rule:
    """A rule: one metric is larger than another on average over the seeds.

    Reproduced where the whole interval of the difference lies above 0, refuted where it lies below,
    undecided where it holds 0.

    Args:
      what: the sentence that the interval belongs to, such as "batch norm − none".
    """

    def decide(measured: Measured) -> Decision:
        found = difference(measured[first], measured[second])
        return Decision(found.above_zero, f"{what}: {found}")

    text = f"95 % interval of the mean of {first} − {second} over the seeds lies above 0"
    return over_seeds(text, decide)
