"""Fair comparisons: rates tuned on seeds of their own, differences with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from experiments import charts
from experiments.intervals import difference
from experiments.lab import Lab
from experiments.ledger import Decision, Measured, Rule, over_seeds
from experiments.setting import Setting
from experiments.training import Outcome

# Never among the seeds that are measured, so that no side is tuned on what decides.
TUNING_SEEDS = (100, 101, 102)
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)


def tuned(lab: Lab, setting: Setting, rates: Sequence[float] = RATES) -> Setting:
    """Returns the setting with that one of the rates whose mean accuracy is highest.

    Every side of a comparison is tuned over the same rates with the same seeds. A quick run takes
    the setting as it is.
    """
    if lab.quick:
        return setting

    def accuracy(candidate: Setting) -> float:
        return float(np.mean(accuracies(lab.outcomes(candidate, TUNING_SEEDS))))

    return max((replace(setting, lr_max=rate) for rate in rates), key=accuracy)


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
    best = {name: tuned(lab, setting) for name, setting in settings.items()}
    outcomes = {name: lab.outcomes(setting) for name, setting in best.items()}
    if picture:
        sides = {name: accuracies(found) for name, found in outcomes.items()}
        lab.picture(picture, charts.sides(sides, "test accuracy"))
    return outcomes, {
        **{f"accuracy_{name}": accuracies(found) for name, found in outcomes.items()},
        **{f"rate_{name}": [setting.lr_max] for name, setting in best.items()},
    }


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
