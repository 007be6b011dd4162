"""Rules that decide a claim: stated before measuring, applied to the measured figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Verdict = Literal["reproduced", "refuted", "undecided"]

# Maps each metric to one number per seed, or to a single number where no seed is involved. The
# numbers may be Python's or NumPy's.
Measured = Mapping[str, Sequence[Any]]

# The most characters of a short reason: a line of 100 has room for them.
SHORT = 41

# A spread over fewer seeds says little.
SEEDS_FOR_A_SPREAD = 5


class NotMeasuredError(Exception):
    """These data, seeds or this machine cannot decide a claim; the message states the reason."""


@dataclass(frozen=True)
class Decision:
    """Whether the measured figures agree with a claim.

    Attributes:
      holds: None where the figures cannot decide the claim.
      reason: the sentence that explains the decision.
      short: what was measured in at most SHORT characters, for a table with one line per claim;
        empty where the first clause of the reason says it.
    """

    holds: bool | None
    reason: str
    short: str = ""


@dataclass(frozen=True)
class Rule:
    """How a claim is decided on one data set, written down before measuring.

    Attributes:
      text: the rule in words.
      decide: maps the measured figures to a decision.
      expected: the verdict that was observed when the rule was written.
      min_seeds: with fewer seeds the claim stays undecided.
    """

    text: str
    decide: Callable[[Measured], Decision]
    expected: Verdict = "reproduced"
    min_seeds: int = 1


def over_seeds(
    text: str, decide: Callable[[Measured], Decision], expected: Verdict = "reproduced"
) -> Rule:
    """Returns a rule about a spread, a share or a mean difference, for five seeds or more."""
    return Rule(text, decide, expected, min_seeds=SEEDS_FOR_A_SPREAD)


def on_digits(rule: Rule, **expected: Verdict) -> dict[str, Rule]:
    """Returns one rule for both MNIST data sets, the whole and the embedded one.

    Args:
      rule: the rule that applies to both.
      expected: the observed verdict by data set, where it differs from the rule's.
    """
    return {
        data: replace(rule, expected=expected.get(data, rule.expected))
        for data in ("mnist", "mnist5k")
    }


def within_spread(published: Sequence[tuple[str, float]], *, test_size: int) -> Rule:
    """Returns a rule: each published figure is plausible as the figure of another seed.

    Args:
      published: pairs of a metric and a figure; accuracies are compared.
      test_size: number of test images; 1/test_size is the resolution of an accuracy.
    """

    def decide(measured: Measured) -> Decision:
        parts = []
        holds = True
        for metric, figure in published:
            values = measured[metric]
            margin = 3 * std(values) + 1 / test_size
            inside = abs(figure - mean(values)) <= margin
            holds &= inside
            parts.append(
                f"{metric}: {figure} is {'within' if inside else 'outside'} "
                f"{mean(values):.4f} ± {margin:.4f}"
            )
        return Decision(holds, "; ".join(parts))

    figures = ", ".join(f"{metric} {figure}" for metric, figure in published)
    return over_seeds(
        f"{figures}: within mean ± (3 standard deviations + 1/{test_size}) of the seeds", decide
    )


def every(metric: str, low: float, high: float = float("inf")) -> Rule:
    """Returns a rule: the metric lies between `low` and `high` in every seed."""
    span = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
    if low == high:
        span = f"{low:g}"

    def decide(measured: Measured) -> Decision:
        values = measured[metric]
        inside = sum(low <= value <= high for value in values)
        farthest = max(values, key=lambda value: max(low - value, value - high))
        return Decision(
            inside == len(values),
            f"{metric} is {span} in {inside} of {len(values)} seeds (farthest: {farthest:.4g})",
            f"{metric} {mean(values):.4g} on average",
        )

    return Rule(text=f"{metric} {span} in every seed", decide=decide)


def exactly(**expected: float) -> Rule:
    """Returns a rule: each metric equals its figure."""

    def decide(measured: Measured) -> Decision:
        wrong = [
            f"{name} is {value:g}, not {figure:g}"
            for name, figure in expected.items()
            for value in measured[name]
            if value != figure
        ]
        return Decision(not wrong, "; ".join(wrong) or "equal")

    text = ", ".join(f"{name} = {figure:g}" for name, figure in expected.items())
    return Rule(text=text, decide=decide)


def all_hold(parts: Sequence[bool | None]) -> bool | None:
    """Returns the conjunction: False where one part is False, else None where one is None."""
    return False if False in parts else None if None in parts else True


def mean(values: Sequence[float]) -> float:
    """Returns the mean over seeds."""
    return float(np.mean(values))


def std(values: Sequence[float]) -> float:
    """Returns the standard deviation over seeds (n − 1), 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
