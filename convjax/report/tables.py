"""Tables of a report: configuration, results, layers, findings, and differences between runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convjax._checks import check_type
from convjax.diagnosis._diagnose import Diagnosis, Finding, diagnose
from convjax.io.json_files import flatten
from convjax.plots.layer_choice import LayerChoice, choose, choose_parameters
from convjax.report.named_run import NamedRun
from convjax.report.table import MISSING, Share, Table, format_value, paragraph
from convjax.report.training_curves import column
from convjax.stats.record import Record, check_record

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
    if run.record is not None and run.record.steps and "train_loss" not in last:
        totals[_TITLES["train_loss"]] = float(run.record.smoothed_loss()[-1])
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


def record_tables(
    record: Record,
    *,
    layers: LayerChoice | None = None,
    diagnosis: Diagnosis | None = None,
    format: str = "text",
) -> str:
    """Returns the diagnosis of a record and the last statistics of its layers and parameters.

    Args:
      record: of any training; what it does not have is left out.
      layers: which to show, as `convjax.plots.layer_choice.choose` takes them: "*" shows all. By
        default at most 12, evenly spaced, and those that a finding names.
      diagnosis: of the record; by default that of `convjax.diagnose`.
      format: "text", "markdown" or "html", a fragment for a notebook or a page.

    Raises:
      TypeError: if record is not a record, diagnosis is not a diagnosis, or layers is of another
        type.
      ValueError: if format is another name, or the record has no such layer.
      IndexError: if the record has no layer of an index.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Recorder, layer_stats, report
      >>> recorder = Recorder()
      >>> recorder.add(2.0, layer_stats({"conv": jnp.arange(8.0), "relu": jnp.ones(8)}))
      >>> text = report.record_tables(recorder.record(), layers="conv")
      >>> print(text.split("\\n\\n")[-1])
      Layers at the end
      layer  values per step  mean  standard deviation  x ≤ 0.05  |x| ≤ 0.05
      conv                 8   3.5               2.449    12.5 %      12.5 %
      1 of 2 layers
    """
    check_record("record", record)
    if format not in ("text", "markdown", "html"):
        raise ValueError(f"format must be 'text', 'markdown' or 'html', got {format!r}.")
    found = diagnosis
    if found is None:
        found = diagnose(record)
    check_type("diagnosis", found, Diagnosis, "convjax.diagnose(record) returns one.")
    parts = [_layers(record, layers, found)] if record.layers else []
    of_parameters = parameters(record, layers, found)
    parts += [of_parameters] if of_parameters else []
    if format == "text":
        return "\n\n".join([repr(record), str(found), *(table.text() for table in parts)])
    said = findings(found)
    blocks: list[str | Table] = [repr(record), said or "Nothing was found."]
    blocks += [*notes(found), *parts]
    if format == "markdown":
        return "\n\n".join(b if isinstance(b, str) else b.markdown() for b in blocks)
    return "".join(paragraph(b) if isinstance(b, str) else b.html(inline=True) for b in blocks)


def findings(diagnosis: Diagnosis) -> Table | None:
    """Returns the findings with their figures, thresholds and fixes; None if there is none."""
    head = (
        *("finding", "where", "from step", "what", "figure", "threshold", "against it", "try"),
        *("to be sure", "see"),
    )
    rows = [
        (
            finding.symptom,
            finding.where,
            finding.step,
            finding.what,
            float(finding.figure),
            _threshold(finding),
            "; ".join(finding.against),
            finding.change,
            finding.decides,
            finding.reference,
        )
        for finding in diagnosis.findings
    ]
    return Table("", head, rows) if rows else None


def _threshold(finding: Finding) -> str:
    if not math.isfinite(finding.threshold):
        return ""
    side = "above" if finding.figure > finding.threshold else "below"
    return f"{side} {format_value(float(finding.threshold))}"


def notes(diagnosis: Diagnosis) -> list[str]:
    """Returns sentences on the consequences and on what could not be checked."""
    texts = []
    if diagnosis.consequences:
        names = dict.fromkeys(finding.symptom for finding in diagnosis.consequences)
        texts.append(f"Possible consequences, also found: {', '.join(names)}.")
    if diagnosis.unchecked:
        lacking = dict.fromkeys(name for of in diagnosis.unchecked.values() for name in of)
        texts.append(f"Not checked: {len(diagnosis.unchecked)}, for lack of {', '.join(lacking)}.")
    return texts


def layers(
    record: Record, which: LayerChoice | None = None, found: Diagnosis | None = None
) -> Table:
    """Returns the layers with their last statistics, values per step and findings.

    Args:
      record: with layers.
      which: layers to show at first, see `convjax.plots.layer_choice.choose`.
      found: the diagnosis of the record, if there is one.
    """
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
    _add_findings(head, columns, record.layers, found)
    shown = choose(record, record.layers, which, found)
    rows = list(zip(*columns, strict=True))
    return Table("Layers at the end", head, rows, shown=shown, what="layers")


_layers = layers  # `record_tables` has an argument of this name


def _add_findings(
    head: list[str], columns: list[Any], names: Sequence[str], found: Diagnosis | None
) -> None:
    """Adds a column of the findings in each layer or parameter, if there are any."""
    every = (*found.findings, *found.consequences) if found else ()
    of_each = [", ".join(f.symptom for f in every if f.where == name) for name in names]
    if any(of_each):
        head.append("found")
        columns.append(of_each)


def parameters(
    record: Record, which: LayerChoice | None = None, diagnosis: Diagnosis | None = None
) -> Table | None:
    """Returns the parameters with their last norms and findings; None if they were not watched.

    Args:
      record: of the training.
      which: layers whose parameters are shown at first, see `choose_parameters`.
      diagnosis: of the record, if there is one.
    """
    found = record.parameters
    if found is None or not len(found.watched):
        return None
    head: list[str] = ["parameter", "numbers"]
    columns: list[Any] = [found.names, found.sizes]
    for title, norm in (
        ("norm", found.weight_norm),
        ("norm of the gradient", found.grad_norm),
        ("norm of the update", found.update_norm),
    ):
        if len(norm):
            head.append(title)
            columns.append(norm[-1])
    _add_findings(head, columns, found.names, diagnosis)
    shown = choose_parameters(record, found.names, which, diagnosis)
    rows = list(zip(*columns, strict=True))
    return Table("Parameters at the end", head, rows, shown=shown, what="parameters")


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
