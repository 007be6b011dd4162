"""A claim of the chapter, what the chapter publishes about it, and the result of measuring it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from convjax.io.json_files import null_to_nan
from experiments.harness.rules import (
    Decision,
    Measured,
    NotMeasuredError,
    Rule,
    Verdict,
    mean,
    std,
)

if TYPE_CHECKING:
    from experiments.harness.lab import Lab


@dataclass(frozen=True)
class Published:
    """What the chapter publishes about a claim: figures, a picture, or a question alone.

    Attributes:
      figures: by metric, a number, or words where the chapter gives several numbers or a range.
      picture: the chapter's picture, which shows the claim without a figure.
      question: what is measured where the chapter shows neither.

    Raises:
      ValueError: unless exactly one of the three is given.
    """

    figures: Mapping[str, float | str] = field(default_factory=dict)
    picture: str | None = None
    question: str | None = None

    def __post_init__(self) -> None:
        given = [f.name for f in fields(self) if getattr(self, f.name)]
        if len(given) != 1:
            raise ValueError(
                "published must be one of figures, picture and question, got "
                f"{' and '.join(given) or 'none'}. Keep one of them."
            )

    def as_json(self) -> dict[str, float | str]:
        """Returns the entry in results.json: the figures, or {"picture"} or {"question"}."""
        if self.picture:
            return {"picture": self.picture}
        return {"question": self.question} if self.question else dict(self.figures)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Published":
        """Returns what an entry made by `as_json` describes.

        Raises:
          ValueError: if the entry is empty.
        """
        if set(entry) in ({"picture"}, {"question"}):
            return cls(**entry)
        return cls(figures=dict(entry))


@dataclass(frozen=True)
class Claim:
    """One claim of the chapter.

    Attributes:
      id: its name on the command line and in results.json.
      statement: what the chapter says.
      published: what the chapter publishes about it.
      measure: runs the trainings and returns the figures; pictures are saved by the lab. This
        function and the rule may raise NotMeasuredError.
      compares: whether it needs dozens of trainings; these are skipped where there are too few
        seeds for the rule.
      rules: by data set; the rule "any" applies to data sets without a rule.
      brief: measures enough for the rule in less time, for a run of the whole chapter. Such a run
        leaves out a comparison without a brief form. It is `measure` where that takes seconds.
      reuses: ids of claims whose trainings it needs, too: its saved seconds exclude them.
    """

    id: str
    statement: str
    published: Published
    measure: Callable[["Lab"], Measured]
    rules: Mapping[str, Rule] = field(default_factory=dict)
    compares: bool = False
    brief: Callable[["Lab"], Measured] | None = None
    reuses: Sequence[str] = ()

    def rule(self, data: str) -> Rule | None:
        """Returns the rule for a data set, or None."""
        return self.rules.get(data, self.rules.get("any"))

    def min_seeds(self, data: str) -> int:
        """Returns the number of seeds that its rule for a data set needs, 1 without a rule."""
        rule = self.rule(data)
        return rule.min_seeds if rule else 1

    def form(self, lab: "Lab", *, brief: bool = False) -> Callable[["Lab"], Measured] | None:
        """Returns what measures it, or None: comparisons only where their rule can decide.

        Args:
          lab: of the measurement.
          brief: whether to take the brief form, where there is one, and no comparison without one.
        """
        rule = self.rule(lab.data)
        decides = rule is not None and len(lab.seeds) >= rule.min_seeds
        if not (lab.quick or decides or not self.compares):
            return None
        return self.brief if brief and (self.brief or self.compares) else self.measure


@dataclass(frozen=True)
class Result:
    """The result of one claim: its entry in results.json, without the figures' mean and std.

    Attributes:
      config: what else the figures depend on: the layout, and whether the run was a quick one or
        measured a brief form of the claim.
      rule: in words.
      seconds: time of the measurement. It includes trainings that a stopped run had finished after
        its last claim, and excludes trainings that an earlier claim had run.
      short: what was measured, in a few words; empty where the reason is short.
      pictures: names of its pictures in the folder `plots`, without .png.
    """

    id: str
    data: str
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    published: Published
    measured: Measured
    rule: str
    verdict: Verdict
    expected: Verdict
    reason: str
    seconds: float
    short: str = ""
    pictures: tuple[str, ...] = ()

    @property
    def brief(self) -> bool:
        """Whether the claim's brief form was measured."""
        return bool(self.config.get("brief"))

    def as_json(self) -> dict[str, Any]:
        """Returns the result as plain data."""
        return {
            **{item.name: getattr(self, item.name) for item in fields(self)},
            "seeds": list(self.seeds),
            "pictures": list(self.pictures),
            "published": self.published.as_json(),
            "measured": {
                name: {"mean": mean(values), "std": std(values), "values": list(values)}
                for name, values in self.measured.items()
            },
            "seconds": round(self.seconds, 2),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Result":
        """Returns the result that an entry made by `as_json` describes.

        Raises:
          KeyError: if a field is missing.
          TypeError: if a field is unknown, or is of another type.
          AttributeError: if a mapping is of another type.
          ValueError: if nothing is published.
        """
        measured = {name: null_to_nan(of["values"]) for name, of in entry["measured"].items()}
        published = Published.from_json(entry["published"])
        replaced = {"seeds": tuple(entry["seeds"]), "published": published, "measured": measured}
        replaced["pictures"] = tuple(entry.get("pictures", ()))
        return cls(**{**entry, **replaced})


def judge(
    claim: Claim,
    lab: "Lab",
    earlier: Result | None = None,
    *,
    brief: bool = False,
    left_out: str = "",
) -> Result:
    """Measures a claim and applies its rule.

    Args:
      claim: the claim.
      lab: runs the trainings.
      earlier: a result whose figures and seconds are used instead of measuring.
      brief: see `Claim.form`.
      left_out: the reason where the claim has no brief form and is left out.
    """
    start, seconds_before = time.perf_counter(), lab.earlier_seconds
    rule = claim.rule(lab.data)
    measured: Measured = {}
    verdict: Verdict = "undecided"
    expected: Verdict = "undecided"  # a claim that cannot be decided here meets the expectation
    form = claim.form(lab, brief=brief)
    shortened = earlier.brief if earlier else form not in (None, claim.measure)
    short = ""
    try:
        if earlier:
            measured = earlier.measured
        elif form:
            found = form(lab)
            measured = {name: [float(v) for v in values] for name, values in found.items()}
        elif brief and rule:
            raise NotMeasuredError(left_out or "left out")
        decision = _decide(rule, measured, lab)
    except NotMeasuredError as error:
        reason = str(error)
    else:
        reason, expected = decision.reason, rule.expected if rule else "undecided"
        short = decision.short
        if shortened:
            reason += f"; in its brief form, the whole one: `run {claim.id}`"
        if decision.holds is not None:
            verdict = "reproduced" if decision.holds else "refuted"
    seconds = time.perf_counter() - start + lab.earlier_seconds - seconds_before
    return Result(
        id=claim.id,
        data=lab.data,
        config={**lab.config, **({"brief": True} if shortened else {})},
        seeds=lab.seeds,
        published=claim.published,
        measured=measured,
        rule=rule.text if rule else "none",
        verdict=verdict,
        expected=expected,
        reason=reason,
        seconds=earlier.seconds if earlier else seconds,
        short=short,
        pictures=earlier.pictures if earlier else tuple(lab.pictures),
    )


def _decide(rule: Rule | None, measured: Measured, lab: "Lab") -> Decision:
    if rule is None:
        raise NotMeasuredError(f"no rule for the data {lab.data!r}")
    if lab.quick:
        raise NotMeasuredError("a quick run decides nothing")
    if len(lab.seeds) < rule.min_seeds:
        raise NotMeasuredError(
            f"needs {rule.min_seeds} seeds, got {len(lab.seeds)}: --seeds {rule.min_seeds}"
        )
    return rule.decide(measured)
