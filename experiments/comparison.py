"""Fair comparisons: rates tuned on seeds of their own, differences with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from convjax.plots import BLUE, ORANGE, new_figure
from experiments.lab import Lab
from experiments.ledger import Decision, Measured, Rule, over_seeds
from experiments.setting import Setting
from experiments.training import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's, with a marker each.
COLORS, MARKERS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#000000", "#56B4E9"), "osD^vP"

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
    lab: Lab, settings: Mapping[str, Setting]
) -> tuple[dict[str, list[Outcome]], dict[str, list[float]]]:
    """Trains each setting at its tuned rate.

    Returns:
      The outcomes by name, and the figures accuracy_NAME and rate_NAME of all names.
    """
    best = {name: tuned(lab, setting) for name, setting in settings.items()}
    outcomes = {name: lab.outcomes(setting) for name, setting in best.items()}
    return outcomes, {
        **{f"accuracy_{name}": accuracies(found) for name, found in outcomes.items()},
        **{f"rate_{name}": [setting.lr_max] for name, setting in best.items()},
    }


class Interval(NamedTuple):
    """A mean difference with the ends of its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool | None:
        """Whether the whole interval lies above 0; None where it holds 0."""
        return None if self.low <= 0 <= self.high else self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.4f} (95 % from {self.low:+.4f} to {self.high:+.4f})"


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Returns the mean of first − second, seed by seed, with Student's interval.

    Raises:
      ValueError: for fewer than two pairs.
    """
    from scipy.stats import t  # it takes as long to import as a claim of arithmetic to measure

    pairs = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if len(pairs) < 2:
        raise ValueError(f"an interval needs two seeds or more, got {len(pairs)}.")
    reach = t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
    return Interval(*(float(pairs.mean() + way * reach) for way in (0, -1, 1)))


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


def spread_figure(
    x: Sequence[float],
    curves: Mapping[str, Sequence[Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
) -> "Figure":
    """Draws curves over a logarithmic axis: a line through the means, a dot for each seed.

    Args:
      curves: by name, for each of x the values of the seeds.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for (name, curve), color, marker in zip(curves.items(), COLORS, MARKERS, strict=False):
        means = [np.mean(values) for values in curve]
        axes.plot(x, means, color=color, marker=marker, markersize=4, label=name)
        for place, values in zip(x, curve, strict=True):
            axes.plot([place] * len(values), values, marker, color=color, alpha=0.4, markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{place:g}" for place in x])
    axes.minorticks_off()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"{ylabel} (dots: seeds, line: mean)")
    axes.legend()
    return figure
