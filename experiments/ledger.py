"""Claims, the rules that decide them, and what comes out: the form of every experiment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from experiments.lab import Lab

Verdict = Literal["reproduced", "refuted", "undecided"]
# Name of a metric → one number per seed, or a single one where no seed is involved; of Python's
# kinds or NumPy's.
Measured = Mapping[str, Sequence[Any]]

# With fewer seeds a spread says little; CLAIMS asks for five.
SEEDS_FOR_A_SPREAD = 5


class NotMeasuredError(Exception):
    """These data or this machine do not have what a claim is about; the message says what."""


@dataclass(frozen=True)
class Decision:
    """Whether the measurement agrees with the claim, and the sentence that says why.

    None leaves it undecided: the measurement was made and cannot tell.
    """

    holds: bool | None
    reason: str


@dataclass(frozen=True)
class Rule:
    """How a claim is decided on one data set, written down before measuring.

    Attributes:
      text: the rule in words.
      decide: takes what was measured.
      expected: the verdict seen when the rule was written.
      min_seeds: with fewer seeds the claim stays undecided.
    """

    text: str
    decide: Callable[[Measured], Decision]
    expected: Verdict = "reproduced"
    min_seeds: int = 1


@dataclass(frozen=True)
class Claim:
    """One claim of the chapter.

    Attributes:
      id: its name in the ledger.
      statement: what the chapter says.
      published: the chapter's figures by metric, or in words.
      measure: runs what it takes and returns the figures, or raises NotMeasuredError; pictures go
        to the lab.
      compares: takes dozens of trainings, which are left out where the seeds do not suffice.
      rules: by data set; a rule under "any" holds for all that have none of their own.
    """

    id: str
    statement: str
    published: Mapping[str, float | str]
    measure: Callable[["Lab"], Measured]
    rules: Mapping[str, Rule] = field(default_factory=dict)
    compares: bool = False

    def rule(self, data: str) -> Rule | None:
        """Returns the rule for a data set, or None."""
        return self.rules.get(data, self.rules.get("any"))


@dataclass(frozen=True)
class Result:
    """What became of one claim; `as_json` is its entry in results.json."""

    claim: Claim
    data: str
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    measured: Measured
    rule: str
    verdict: Verdict
    expected: Verdict
    reason: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns the result as plain data."""
        return {
            "id": self.claim.id,
            "data": self.data,
            "config": dict(self.config),
            "seeds": list(self.seeds),
            "published": dict(self.claim.published),
            "measured": {
                name: {"mean": mean(values), "std": std(values), "values": list(values)}
                for name, values in self.measured.items()
            },
            "rule": self.rule,
            "verdict": self.verdict,
            "expected": self.expected,
            "reason": self.reason,
            "seconds": round(self.seconds, 2),
        }


def judge(claim: Claim, lab: "Lab") -> tuple[Measured, str, Verdict, Verdict, str]:
    """Measures a claim and applies its rule: (measured, rule, verdict, expected, reason)."""
    rule = claim.rule(lab.data)
    # Many trainings to no end: a claim that compares is measured only where it can be decided.
    if rule and claim.compares and not lab.quick and len(lab.seeds) < rule.min_seeds:
        reason = f"compares {rule.min_seeds} seeds or more, got {len(lab.seeds)}"
        return {}, rule.text, "undecided", "undecided", f"{reason}: --seeds {rule.min_seeds}"
    try:
        found = claim.measure(lab)
    except NotMeasuredError as error:
        return {}, rule.text if rule else "none", "undecided", "undecided", str(error)
    measured = {name: [float(v) for v in values] for name, values in found.items()}
    if rule is None:
        return measured, "none", "undecided", "undecided", f"no rule for the data {lab.data!r}"
    if lab.quick:
        return measured, rule.text, "undecided", "undecided", "a quick run decides nothing"
    if len(lab.seeds) < rule.min_seeds:
        reason = f"needs {rule.min_seeds} seeds, got {len(lab.seeds)}: --seeds {rule.min_seeds}"
        return measured, rule.text, "undecided", "undecided", reason
    decision = rule.decide(measured)
    if decision.holds is None:
        return measured, rule.text, "undecided", "undecided", decision.reason
    verdict: Verdict = "reproduced" if decision.holds else "refuted"
    return measured, rule.text, verdict, rule.expected, decision.reason


def on_digits(rule: Rule) -> dict[str, Rule]:
    """Returns one rule for MNIST, whole and embedded."""
    return {"mnist": rule, "mnist5k": rule}


def mean(values: Sequence[float]) -> float:
    """Returns the mean over seeds."""
    return float(np.mean(values))


def std(values: Sequence[float]) -> float:
    """Returns the standard deviation over seeds (n − 1), 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def within_spread(published: Sequence[tuple[str, float]], *, test_size: int) -> Rule:
    """A rule: each published figure could be one of ours.

    Args:
      published: pairs of a metric and a figure; accuracies are compared.
      test_size: number of test images; 1/test_size is the resolution of an accuracy.
    """

    def decide(measured: Measured) -> Decision:
        parts = []
        holds = True
        for metric, figure in published:
            values = measured[metric]
            reach = 3 * std(values) + 1 / test_size
            inside = abs(figure - mean(values)) <= reach
            holds &= inside
            parts.append(
                f"{metric}: {figure} is {'within' if inside else 'outside'} "
                f"{mean(values):.4f} ± {reach:.4f}"
            )
        return Decision(holds, "; ".join(parts))

    figures = ", ".join(f"{metric} {figure}" for metric, figure in published)
    return Rule(
        text=f"{figures}: within mean ± (3 standard deviations + 1/{test_size}) of the seeds",
        decide=decide,
        min_seeds=SEEDS_FOR_A_SPREAD,
    )


def every(metric: str, low: float, high: float = float("inf")) -> Rule:
    """A rule: in every seed the metric lies between `low` and `high`."""
    span = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
    if low == high:
        span = f"{low:g}"

    def decide(measured: Measured) -> Decision:
        values = measured[metric]
        inside = sum(low <= value <= high for value in values)
        worst = min(values)
        return Decision(
            inside == len(values),
            f"{metric} is {span} in {inside} of {len(values)} seeds (lowest {worst:.4g})",
        )

    return Rule(text=f"{metric} {span} in every seed", decide=decide)


def exactly(**wanted: float) -> Rule:
    """A rule: each metric equals the figure."""

    def decide(measured: Measured) -> Decision:
        wrong = [
            f"{name} is {measured[name][0]:g}, not {value:g}"
            for name, value in wanted.items()
            if any(found != value for found in measured[name])
        ]
        return Decision(not wrong, "; ".join(wrong) or "equal")

    text = ", ".join(f"{name} = {value:g}" for name, value in wanted.items())
    return Rule(text=text, decide=decide)
