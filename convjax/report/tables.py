"""Tables of a report: the configuration, the results, and the differences between runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convjax.io.json_files import flatten
from convjax.report.named_run import NamedRun
from convjax.report.table import MISSING, Share, Table, format_value
from convjax.report.training_curves import column
from convjax.stats.record import Record

# Titles of metrics; other metrics keep their names.
_TITLES = {
    "train_loss": "training loss, smoothed",
    "valid_loss": "validation loss",
    "accuracy": "accuracy",
    "train_accuracy": "training accuracy",
    "compile_seconds": "compilation, s",
    "seconds": "training and evaluation, s",
}
_SUMS = ("seconds", "compile_seconds")  # added over the evaluations; of others the last is shown


def configuration(values: Mapping[str, Any], caption: str) -> Table:
    """Returns plain data as one row per name and value."""
    rows = list(flatten(values).items())
    return Table(caption, ("name", "value"), rows, exact=True)


def outcome(run: NamedRun) -> Table:
    """Returns the results of a run: steps, last metrics and times."""
    return Table("The run in numbers", ("quantity", "value"), list(_totals(run).items()))


def outcomes(runs: Sequence[NamedRun]) -> Table:
    """Returns the results of several runs, one row each."""
    totals = [_totals(run) for run in runs]
    titles = list(dict.fromkeys(title for of_run in totals for title in of_run))
    rows = [
        (run.name, *(of_run.get(title, MISSING) for title in titles))
        for run, of_run in zip(runs, totals, strict=True)
    ]
    return Table("The runs in numbers", ("run", *titles), rows)


def _totals(run: NamedRun) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    if run.record is not None:
        totals["steps"] = run.record.steps
    elif run.metrics and "step" in run.metrics[-1]:
        totals["steps"] = run.metrics[-1]["step"]
    if run.metrics:
        totals["evaluations"] = len(run.metrics)
    last = {name: value for row in run.metrics for name, value in row.items()}
    names = [*_TITLES, *(name for name in last if name not in _TITLES)]
    for name in names:
        if name in last and name not in ("epoch", "step"):
            totals[_TITLES.get(name, name)] = _sum(run, name) if name in _SUMS else last[name]
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
    rows = [[row.get(name, MISSING) for name in names] for row in run.metrics]
    return Table("Every evaluation", names, rows)


def layers(record: Record) -> Table:
    """Returns the layers with their last statistics, and their values per step."""
    head = ["layer", "values per step"]
    columns: list[Any] = [record.layers, record.sizes]
    if len(record.active):
        head.append("channels")
        columns.append(record.channels)
    if len(record.watched):
        threshold = f"{record.near_zero_threshold:g}"
        head += ["mean", "standard deviation", f"x ≤ {threshold}", f"|x| ≤ {threshold}"]
        columns += [record.mean[-1], record.std[-1]]
        columns += [map(Share, s[-1]) for s in (record.near_zero, record.abs_near_zero)]
    return Table("Layers at the end", head, list(zip(*columns, strict=True)))


def parameters(record: Record) -> Table | None:
    """Returns the parameters with their last norms; None if they were not watched."""
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
    return Table("Parameters at the end", head, list(zip(*columns, strict=True)))


def differing(runs: Sequence[NamedRun], which: str, caption: str) -> Table | None:
    """Returns the values that differ between runs; None if none does.

    Args:
      runs: two or more.
      which: "config" or "environment".
      caption: of the table.
    """
    each = [flatten(getattr(run, which)) for run in runs]
    names = list(dict.fromkeys(name for values in each for name in values))
    columns = {name: [values.get(name, MISSING) for values in each] for name in names}
    columns = {
        name: cells
        for name, cells in columns.items()
        if len({format_value(cell, exact=True) for cell in cells}) > 1
    }
    if not columns:
        return None
    rows = [(run.name, *cells) for run, *cells in zip(runs, *columns.values(), strict=True)]
    return Table(caption, ("run", *columns), rows, exact=True)
