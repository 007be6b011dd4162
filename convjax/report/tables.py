"""Tables of a report: what was configured, what came out, and what runs differ in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convjax.io.json_files import flatten
from convjax.report.components import Table
from convjax.report.named_run import NamedRun
from convjax.report.training_curves import column
from convjax.stats.activations import NEAR_ZERO
from convjax.stats.record import Record

# What an evaluation tells, in words; other metrics go by their own names.
_WORDS = {
    "train_loss": "training loss, smoothed",
    "valid_loss": "validation loss",
    "accuracy": "accuracy",
    "train_accuracy": "training accuracy",
    "compile_seconds": "compilation, s",
    "seconds": "training and evaluation, s",
}
# These add up over the evaluations; of all others the last counts.
_SUMS = ("seconds", "compile_seconds")


def configuration(values: Mapping[str, Any], caption: str) -> Table:
    """Returns plain data as names and values."""
    rows = [(name, exact(value)) for name, value in flatten(values).items()]
    return Table(caption, ("name", "value"), rows, (False, False))


def outcome(run: NamedRun) -> Table:
    """Returns what a run came to: steps, last metrics, times."""
    rows = [(title, shown(value)) for title, value in _totals(run).items()]
    return Table("The run in numbers", ("quantity", "value"), rows, (False, True))


def outcomes(runs: Sequence[NamedRun]) -> Table:
    """Returns the same of several runs, one row each."""
    totals = [_totals(run) for run in runs]
    titles = list(dict.fromkeys(title for of_run in totals for title in of_run))
    rows = [
        (run.name, *(shown(of_run[title]) if title in of_run else "–" for title in titles))
        for run, of_run in zip(runs, totals, strict=True)
    ]
    numeric = (False, *(True for _ in titles))
    return Table("The runs in numbers", ("run", *titles), rows, numeric)


def _totals(run: NamedRun) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    if run.record is not None:
        totals["steps"] = run.record.steps
    elif run.metrics and "step" in run.metrics[-1]:
        totals["steps"] = run.metrics[-1]["step"]
    if run.metrics:
        totals["evaluations"] = len(run.metrics)
    last = {name: value for row in run.metrics for name, value in row.items()}
    names = [*_WORDS, *(name for name in last if name not in _WORDS)]
    for name in names:
        if name in last and name not in ("epoch", "step"):
            totals[_WORDS.get(name, name)] = _sum(run, name) if name in _SUMS else last[name]
        if name == "accuracy" and len(run.metrics) > 1:
            _, values = column(run.metrics, name)
            values = values[np.isfinite(values)]
            totals |= {"highest accuracy": float(values.max())} if len(values) else {}
    return totals


def _sum(run: NamedRun, name: str) -> float:
    values = (row.get(name, 0) for row in run.metrics)
    return float(sum(value for value in values if isinstance(value, int | float)))


def evaluations(run: NamedRun) -> Table:
    """Returns the metrics of every evaluation."""
    names = list(dict.fromkeys(name for row in run.metrics for name in row))
    rows = [[shown(row[name]) if name in row else "–" for name in names] for row in run.metrics]
    return Table("Every evaluation", names, rows, [True] * len(names))


def layers(record: Record) -> Table:
    """Returns the layers with their last statistics; the values are those of one step."""
    head = ["layer", "values per step"]
    columns: list[Any] = [record.layers, record.sizes]
    if len(record.active):
        head.append("channels")
        columns.append(record.channels)
    if len(record.watched):
        head += ["mean", "standard deviation", f"x ≤ {NEAR_ZERO}", f"|x| ≤ {NEAR_ZERO}"]
        columns += [record.mean[-1], record.std[-1]]
        columns += [
            [f"{100 * share:.1f} %" for share in s[-1]]
            for s in (record.near_zero, record.abs_near_zero)
        ]
    rows = [[shown(value) for value in row] for row in zip(*columns, strict=True)]
    return Table("Layers at the end", head, rows, [False] + [True] * (len(head) - 1))


def parameters(record: Record) -> Table | None:
    """Returns the parameters with their last norms, None where they were not watched."""
    found = record.parameters
    if found is None or not len(found.watched):
        return None
    head, columns = ["parameter", "numbers"], [found.names, found.sizes]
    for title, norm in (
        ("norm", found.weight_norm),
        ("norm of the gradient", found.grad_norm),
        ("norm of the update", found.update_norm),
    ):
        if len(norm):
            head.append(title)
            columns.append(norm[-1])
    rows = [[shown(value) for value in row] for row in zip(*columns, strict=True)]
    return Table("Parameters at the end", head, rows, [False] + [True] * (len(head) - 1))


def differing(runs: Sequence[NamedRun], which: str, caption: str) -> Table | None:
    """Returns in what the configurations or environments of runs differ, None if in nothing.

    Args:
      which: "config" or "environment".
    """
    each = [flatten(getattr(run, which)) for run in runs]
    names = list(dict.fromkeys(name for values in each for name in values))
    columns = {
        name: [exact(values[name]) if name in values else "–" for values in each] for name in names
    }
    columns = {name: cells for name, cells in columns.items() if len(set(cells)) > 1}
    if not columns:
        return None
    rows = [(run.name, *cells) for run, *cells in zip(runs, *columns.values(), strict=True)]
    numeric = [all(map(_is_number, cells)) for cells in columns.values()]
    return Table(caption, ("run", *columns), rows, (False, *numeric))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "–"
    return True


def exact(value: Any) -> str:
    """Returns a value of a configuration with all its figures."""
    if isinstance(value, list | tuple):
        return ", ".join(map(exact, value)) or "none"
    numbers = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(value) if numbers else shown(value)


def shown(value: Any) -> str:
    """Returns a value as a table has it: four figures of a float, commas in large counts."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, float | np.floating):
        return _float(float(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def _float(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value}"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
