"""The report of the reported faults and of the zoo of healthy trainings, in Markdown."""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from convjax.terminal.tables import TextTable
from experiments.diagnosis_study.sagemaker_rules import RULE_SYMPTOMS
from experiments.diagnosis_study.suite import PARTS
from experiments.harness.intervals import Interval, share

BARS = {"cause first": 0.80, "cause among the first three": 0.90, "healthy without a finding": 0.98}
FIRST = 3

_OPPOSITES = (
    {"learning rate too low", "learning rate too high"},
    {"learning rate too low", "exploding gradients"},
    {"learning rate too low", "loss summed over the batch"},
    {"learning rate too low", "gradients accumulate"},
    {"update too small", "update too large"},
    {"vanishing gradients", "exploding activations"},
    {"vanishing gradients", "exploding gradients"},
    {"vanishing gradients", "saturation"},
    {"weight decay too strong", "exploding activations"},
)

# The others have reported faults alone, which were collected after the thresholds were set.
_ALL = (*PARTS, "further", "last")


def sets_tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the figures beside their bars, those of each cause, and what is still wrong.

    Args:
      rows: as `convjax`'s study saves them, see `experiments.diagnosis_study.sets.Said`.
    """
    measured = [row for row in rows if row["part"] != PARTS[0]]
    tables = [_bars(rows), _beside(measured), _by_cause(measured), _confusion(measured)]
    return [*tables, _wrong(measured), _sources(rows)]


def named(row: dict[str, Any]) -> list[str]:
    """Returns the causes that the diagnosis names of a training, in its order."""
    return [*row["findings"], *row["consequences"]]


def _bars(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for name, bar in BARS.items():
        cells.append((name, f"{bar:.2f}", *(_text(_figure(name, rows, part)) for part in _ALL)))
    cells.append(
        (
            "controls without a finding",
            "",
            *(_text(_clean(rows, "control", part)) for part in _ALL),
        )
    )
    opposite = (str(sum(map(_is_opposite, _of(rows, "reported", part)))) for part in _ALL)
    cells.append(("advice opposite to the truth, trainings", "0", *opposite))
    heading = (
        *("figure", "bar", "part for thresholds", "measured part"),
        *("collected afterwards", "collected last"),
    )
    counts = Counter((row["of"], row["part"]) for row in rows)
    text = ", ".join(f"{n} {of} ({part})" for (of, part), n in sorted(counts.items()))
    return f"{TextTable(heading, cells).markdown()}\n\nTrainings: {text}."


def _figure(name: str, rows: Sequence[dict[str, Any]], part: str) -> Interval:
    if name.startswith("healthy"):
        return _clean(rows, "healthy", part)
    first = 1 if name == "cause first" else FIRST
    of_part = _of(rows, "reported", part)
    return share(sum(row["truth"] in named(row)[:first] for row in of_part), len(of_part))


def _of(rows: Sequence[dict[str, Any]], of: str, part: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["of"] == of and row["part"] == part]


def _is_opposite(row: dict[str, Any]) -> bool:
    """Returns whether the first finding advises the opposite of what helps."""
    said = {row["truth"], *named(row)[:1]}
    return any(said == pair for pair in _OPPOSITES)


def _is_healthy(row: dict[str, Any]) -> bool:
    return row["reached"] is not None and row["reached"] >= row["bar"]


def _clean(rows: Sequence[dict[str, Any]], of: str, part: str) -> Interval:
    # A training that misses its bar is not shown to be healthy, and says nothing here.
    kept = [row for row in _of(rows, of, part) if _is_healthy(row)]
    return share(sum(not row["findings"] for row in kept), len(kept))


def _by_cause(rows: Sequence[dict[str, Any]]) -> str:
    reported = [row for row in rows if row["of"] == "reported"]
    others = [row for row in rows if row["of"] != "reported" and _is_healthy(row)]
    cells = []
    for cause in sorted({row["truth"] for row in reported}):
        own = [row for row in reported if row["truth"] == cause]
        said = [row for row in reported if named(row)[:1] == [cause]]
        cells.append(
            (
                cause,
                _text(share(sum(row in said for row in own), len(own))),
                _text(share(sum(row in own for row in said), len(said))),
                _instead(own),
                str(sum(cause in row["findings"] for row in others)),
                _change([row for row in own if row in said], rows),
            )
        )
    heading = (
        *("cause", "recall, first", "precision, first", "symptom or nothing said"),
        *("false alarms", "reached, with the fault and without"),
    )
    return TextTable(heading, cells).markdown()


def _instead(rows: Sequence[dict[str, Any]]) -> str:
    """Returns how often the cause was only among the consequences, or not said at all."""
    symptom = sum(row["truth"] in named(row)[1:] for row in rows)
    return f"{symptom}, {sum(not named(row) for row in rows)}"


def _change(found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """Returns what the trainings whose cause was named reach, and what removing it changes."""
    controls = {row["name"]: row["reached"] for row in rows if row["of"] == "control"}
    pairs = [(row["reached"], controls.get(row["name"])) for row in found]
    pairs = [pair for pair in pairs if None not in pair]  # some end as no number
    if not pairs:
        return "none"
    before, after = (median(values) for values in zip(*pairs, strict=True))
    better = sum(after > before for before, after in pairs)
    return f"{before:.2f} → {after:.2f}, better in {better} of {len(pairs)}"


def _confusion(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the causes that were named first instead of others, with their numbers."""
    pairs = Counter(
        (row["truth"], (named(row) or ["nothing"])[0]) for row in rows if row["of"] == "reported"
    )
    cells = [(*pair, str(n)) for pair, n in sorted(pairs.items()) if pair[0] != pair[1]]
    return TextTable(("truth", "named first", "trainings"), cells).markdown()


# The causes that a plain reading of the loss may mean.
_OF_CURVES: dict[str, tuple[str, ...]] = {
    "not finite": (
        *("loss not finite", "gradients not finite", "parameters not finite", "inputs not finite"),
        *("learning rate too high", "exploding gradients"),
    ),
    "rises": ("learning rate too high", "exploding gradients"),
    "does not fall": ("learning rate too low", "inputs and labels do not match"),
    "falls": (),
}


def _beside(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the diagnosis beside SageMaker Debugger's rules and the curve of the loss."""
    faulty = [row for row in rows if row["of"] == "reported"]
    healthy = [row for row in rows if row["of"] == "healthy" and _is_healthy(row)]
    means: dict[str, Callable[[dict[str, Any]], list[str]]] = {
        "convjax.diagnose": named,
        "rules of SageMaker Debugger": lambda row: [
            cause for rule in row["rules"] for cause in RULE_SYMPTOMS[rule]
        ],
        "the loss alone": lambda row: list(_OF_CURVES[row["curve"]]),
    }
    cells = [
        (
            name,
            _text(share(sum(row["truth"] in said(row) for row in faulty), len(faulty))),
            _text(share(sum(bool(said(row)) for row in faulty), len(faulty))),
            _text(share(sum(not said(row) for row in healthy), len(healthy))),
        )
        for name, said in means.items()
    ]
    heading = ("", "cause among all that is said", "faults with a finding", "healthy without one")
    return TextTable(heading, cells).markdown()


def _sources(rows: Sequence[dict[str, Any]]) -> str:
    """Returns every reported fault with its source and what is said first."""
    cells = [
        (row["name"], row["part"], row["truth"], (named(row) or ["nothing"])[0], row["source"])
        for row in rows
        if row["of"] == "reported"
    ]
    return TextTable(("fault", "part", "cause", "said first", "source"), cells).markdown()


def _wrong(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        (row["name"], row["truth"] or "healthy", ", ".join(named(row)[:FIRST]) or "nothing")
        for row in rows
        if (row["truth"] and named(row)[:1] != [row["truth"]])
        or (not row["truth"] and row["findings"] and _is_healthy(row))
    ]
    return TextTable(("training", "truth", "said"), cells).markdown()


def _text(figure: Interval) -> str:
    if figure.mean != figure.mean:
        return "none"
    return f"{figure.mean:.3f} ({figure.low:.3f} to {figure.high:.3f})"
