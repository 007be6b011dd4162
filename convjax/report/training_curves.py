"""Charts of training curves: the loss, the accuracy and the schedule."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from convjax.diagnosis._diagnose import Finding
from convjax.plots.training import LOG_RATIO, schedules
from convjax.report.components import Chart, Charts, LineStyle, series
from convjax.report.named_run import NamedRun
from convjax.report.typed_arrays import Reference, TypedArrays
from convjax.stats.record import Record

MAX_ROWS = 8192  # points of a line, more than any screen can show

# Lines of a single run; the batches are pale, behind the others.
_BATCHES = LineStyle("training, each batch", "light-dark(#8cbfe0, #2c648b)")
_TRAINING = LineStyle("training", series(0))
_VALIDATION = LineStyle("validation", series(1))

Spec = dict[str, Any]
Metrics = Sequence[dict[str, Any]]


def bounded(record: Record) -> Record:
    """Returns the record merged to the number of rows of a chart."""
    return record.merged(MAX_ROWS)


def points(of: Record) -> str:
    """Returns a sentence on what a point of a chart shows."""
    most = int(of.counts.max(initial=1))
    return "Each point is one step." if most == 1 else f"A point is the mean of up to {most} steps."


def trace(line: LineStyle, x: Reference, y: Reference, **how: Any) -> Spec:
    """Returns a line of a chart; `how` is documented in templates/report_charts.js."""
    return {
        "name": line.name,
        "key": line.name,
        "colour": line.colour,
        "dash": line.dash,
        "x": x,
        "y": y,
        **how,
    }


def spec(y: str, traces: Sequence[Spec], **how: Any) -> Spec:
    """Returns one variant of a chart of lines over the steps."""
    return {"kind": "lines", "y": y, "traces": list(traces), **how}


def curves_of_one(run: NamedRun, arrays: TypedArrays, findings: Sequence[Finding]) -> Charts:
    """Returns charts of the loss and, if there is one, of the accuracy.

    The chart of the loss has the batches, the smoothed loss, the validation loss, and a numbered
    line at the first step of each finding.
    """
    traces, shown = [], []
    if run.record is not None:
        record = bounded(run.record)
        smoothed, x = record.smoothed_loss(), arrays.add(record.first)
        traces.append(trace(_BATCHES, x, arrays.add(record.loss), width=1))
        traces.append(trace(_TRAINING, x, arrays.add(smoothed), width=2.5))
        shown.append(smoothed)
    steps, values = column(run.metrics, "valid_loss")
    if len(values):
        traces.append(trace(_VALIDATION, arrays.add(steps), arrays.add(values), points=True))
        shown.append(values)
    marks = [[finding.step, i] for i, finding in enumerate(findings, 1)]
    charts = [Chart("loss", "Loss", [spec(*_loss_axis(shown), traces, marks=marks)])]
    traces = []
    for name, line in (("accuracy", _VALIDATION), ("train_accuracy", _TRAINING)):
        steps, values = column(run.metrics, name)
        if len(values):
            traces.append(trace(line, arrays.add(steps), arrays.add(values), points=True))
    if traces:
        charts.append(Chart("accuracy", "Accuracy", [spec("accuracy", traces)]))
    drawn = {trace["name"] for chart in charts for trace in chart.variants[0]["traces"]}
    lines = [line for line in (_BATCHES, _TRAINING, _VALIDATION) if line.name in drawn]
    return Charts(charts, lines)


def schedule(runs: Sequence[tuple[LineStyle, NamedRun]], arrays: TypedArrays) -> list[Chart]:
    """Returns charts of the learning rate and the momentum that the optimisers used.

    One that no run recorded is left out.
    """
    found = []
    for name in ("learning rate", "momentum"):
        traces = [
            trace(line, arrays.add(record.first), arrays.add(schedules(record)[name]))
            for line, record in _records(runs)
            if name in schedules(record)
        ]
        if traces:
            found.append(Chart(name.replace(" ", "-"), name.capitalize(), [spec(name, traces)]))
    return found


def curves_of_several(
    runs: Sequence[tuple[LineStyle, NamedRun]], arrays: TypedArrays
) -> list[Chart]:
    """Returns charts of the smoothed loss and of the evaluations, one line per run."""
    charts, traces, shown = [], [], []
    for line, record in _records(runs):
        smoothed = record.smoothed_loss()
        traces.append(trace(line, arrays.add(record.first), arrays.add(smoothed)))
        shown.append(smoothed)
    if traces:
        title = "Training loss, smoothed"
        charts.append(Chart("loss", title, [spec(*_loss_axis(shown), traces)]))
    for name, title in (("valid_loss", "Validation loss"), ("accuracy", "Accuracy")):
        traces, shown = [], []
        for line, run in runs:
            steps, values = column(run.metrics, name)
            if len(values):
                x, y = arrays.add(steps), arrays.add(values)
                traces.append(trace(line, x, y, points=True))
                shown.append(values)
        if traces:
            axis = _loss_axis(shown) if name == "valid_loss" else ("accuracy",)
            charts.append(Chart(name.replace("_", "-"), title, [spec(*axis, traces)]))
    return charts


def column(
    metrics: Metrics, name: str
) -> tuple[Float[np.ndarray, " evaluations"], Float[np.ndarray, " evaluations"]]:
    """Returns the steps and the values of the evaluations that have a metric."""
    pairs = [(row["step"], row[name]) for row in metrics if _number(row.get("step"), row.get(name))]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(steps, np.float64), np.array(values, np.float64)


def _number(*values: Any) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _records(runs: Sequence[tuple[LineStyle, NamedRun]]) -> Iterator[tuple[LineStyle, Record]]:
    for line, run in runs:
        if run.record is not None:
            yield line, bounded(run.record)


def _loss_axis(shown: Sequence[Float[np.ndarray, "..."]]) -> tuple[str]:
    """Returns the label of an axis of losses, by which the page chooses a logarithmic axis.

    As in `convjax.plots.plot_loss`, it is logarithmic if the losses are positive and span more than
    a factor of 20.
    """
    values = np.concatenate([np.zeros(0), *shown])
    values = values[np.isfinite(values)]
    wide = values.size and values.min() > 0 and values.max() > LOG_RATIO * values.min()
    return ("loss (log scale)" if wide else "loss",)
