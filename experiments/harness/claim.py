"""Claims, the rules that decide them, and what comes out: the form of every experiment."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from convjax.io.json_files import null_to_nan

if TYPE_CHECKING:
    from experiments.harness.lab import Lab

Verdict = Literal["reproduced", "refuted", "undecided"]
# Name of a metric → one number per seed, or a single one where no seed is involved; of Python's
# kinds or NumPy's.
Measured = Mapping[str, Sequence[Any]]

# With fewer seeds a spread says little; CLAIMS asks for five.
SEEDS_FOR_A_SPREAD = 5


class NotMeasuredError(Exception):
    """These data, seeds or this machine cannot decide a claim; the message says why."""


@dataclass(frozen=True)
class Decision:
    """Whether the measurement agrees with the claim, and the sentence that says why.

    None leaves it undecided: the figures cannot tell.
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
      measure: runs what it takes and returns the figures; pictures go to the lab. It, and what
        decides, may raise NotMeasuredError.
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

    def is_measured(self, lab: "Lab") -> bool:
        """Tells whether the lab measures it: what compares only where its rule can decide."""
        rule = self.rule(lab.data)
        decides = rule is not None and len(lab.seeds) >= rule.min_seeds
        return lab.quick or decides or not self.compares


@dataclass(frozen=True)
class Result:
    """What became of one claim: its entry in results.json, beside the figures' mean and std.

    Attributes:
      config: what else the figures depend on: the layout, and whether the run was a quick one.
      rule: in words.
      seconds: that it took, with those of trainings that a stopped run had finished; trainings that
        an earlier claim had asked for took no time.
    """

    id: str
    data: str
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    published: Mapping[str, float | str]
    measured: Measured
    rule: str
    verdict: Verdict
    expected: Verdict
    reason: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns the result as plain data."""
        return {
            **{item.name: getattr(self, item.name) for item in fields(self)},
            "seeds": list(self.seeds),
            "measured": {
                name: {"mean": mean(values), "std": std(values), "values": list(values)}
                for name, values in self.measured.items()
            },
            "seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Result":
        """Returns the result of an entry that `as_json` made.

        Raises:
          KeyError, TypeError, AttributeError: if it is no such entry.
        """
        measured = {name: null_to_nan(of["values"]) for name, of in entry["measured"].items()}
        return cls(**{**entry, "seeds": tuple(entry["seeds"]), "measured": measured})


def judge(claim: Claim, lab: "Lab", kept: Result | None = None) -> Result:
    """Measures a claim and applies its rule.

    Args:
      kept: an earlier result, whose figures and seconds are taken instead of measuring.
    """
    began, earlier = time.perf_counter(), lab.earlier_seconds
    rule = claim.rule(lab.data)
    measured: Measured = {}
    verdict: Verdict = "undecided"
    expected: Verdict = "undecided"  # what cannot be decided here is no departure
    try:
        if kept:
            measured = kept.measured
        elif claim.is_measured(lab):
            found = claim.measure(lab)
            measured = {name: [float(v) for v in values] for name, values in found.items()}
        decision = _decide(rule, measured, lab)
    except NotMeasuredError as error:
        reason = str(error)
    else:
        reason, expected = decision.reason, rule.expected if rule else "undecided"
        if decision.holds is not None:
            verdict = "reproduced" if decision.holds else "refuted"
    return Result(
        id=claim.id,
        data=lab.data,
        config=lab.config,
        seeds=lab.seeds,
        published=claim.published,
        measured=measured,
        rule=rule.text if rule else "none",
        verdict=verdict,
        expected=expected,
        reason=reason,
        seconds=kept.seconds
        if kept
        else time.perf_counter() - began + lab.earlier_seconds - earlier,
    )


def _decide(rule: Rule | None, measured: Measured, lab: "Lab") -> Decision:
    if rule is None:
        raise NotMeasuredError(f"no rule for the data {lab.data!r}")
    if lab.quick:
        raise NotMeasuredError("a quick run decides nothing")
    _check_seeds(rule, lab)
    return rule.decide(measured)


def _check_seeds(rule: Rule, lab: "Lab") -> None:
    if len(lab.seeds) < rule.min_seeds:
        raise NotMeasuredError(
            f"needs {rule.min_seeds} seeds, got {len(lab.seeds)}: --seeds {rule.min_seeds}"
        )


def over_seeds(
    text: str, decide: Callable[[Measured], Decision], expected: Verdict = "reproduced"
) -> Rule:
    """A rule about a spread, a share or a mean difference: for five seeds or more."""
    return Rule(text, decide, expected, min_seeds=SEEDS_FOR_A_SPREAD)


def on_digits(rule: Rule, **seen: Verdict) -> dict[str, Rule]:
    """Returns one rule for MNIST, whole and embedded, with the verdict seen on each.

    Args:
      seen: by data set, where it is not "reproduced".
    """
    return {
        data: replace(rule, expected=seen.get(data, rule.expected)) for data in ("mnist", "mnist5k")
    }


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
    return over_seeds(
        f"{figures}: within mean ± (3 standard deviations + 1/{test_size}) of the seeds", decide
    )


def every(metric: str, low: float, high: float = float("inf")) -> Rule:
    """A rule: in every seed the metric lies between `low` and `high`."""
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
        )

    return Rule(text=f"{metric} {span} in every seed", decide=decide)


def exactly(**wanted: float) -> Rule:
    """A rule: each metric equals the figure."""

    def decide(measured: Measured) -> Decision:
        wrong = [
            f"{name} is {found:g}, not {value:g}"
            for name, value in wanted.items()
            for found in measured[name]
            if found != value
        ]
        return Decision(not wrong, "; ".join(wrong) or "equal")

    text = ", ".join(f"{name} = {value:g}" for name, value in wanted.items())
    return Rule(text=text, decide=decide)
