"""Charts of the layers, gradients and updates of a network over the steps."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from convjax.diagnosis.evidence import network_columns
from convjax.plots.parameters import RULE_OF_THUMB
from convjax.report.components import Chart, Charts, LineStyle, ordered_lines
from convjax.report.named_run import NamedRun
from convjax.report.training_curves import bounded, spec, trace
from convjax.report.typed_arrays import TypedArrays
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record

# Attribute of the record, title of the chart, label of the axis, factor.
STATISTICS: tuple[tuple[str, str, str, float], ...] = (
    ("mean", "Mean", "mean", 1),
    ("std", "Standard deviation", "standard deviation", 1),
    ("near_zero", "Near zero: x ≤ {threshold}", "% of values", 100),
    ("abs_near_zero", "Near zero: |x| ≤ {threshold}", "% of values", 100),
)


def _title(title: str, records: Iterable[Record]) -> str:
    thresholds = dict.fromkeys(f"{record.near_zero_threshold:g}" for record in records)
    return title.format(threshold=" or ".join(thresholds))


def has_layers(record: Record | None) -> bool:
    """Whether the record has statistics of the network's own layers."""
    return record is not None and bool(network_columns(record)) and len(record.watched) > 0


def layers_of_one(record: Record, columns: Sequence[int], arrays: TypedArrays) -> Charts:
    """Returns charts of the statistics, one line per layer of these columns."""
    record = bounded(record)
    lines, steps = ordered_lines([record.layers[i] for i in columns]), arrays.add(record.watched)
    charts = []
    for name, title, axis, factor in STATISTICS:
        rows = arrays.rows(_scaled(getattr(record, name), factor)[:, columns].T)
        traces = [trace(line, steps, row) for line, row in zip(lines, rows, strict=True)]
        shown = [spec(axis, traces, **_range(factor))]
        charts.append(Chart(_id(name), _title(title, [record]), shown))
    return Charts(charts, lines)


def layers_of_several(runs: Sequence[tuple[LineStyle, NamedRun]], arrays: TypedArrays) -> Charts:
    """Returns charts of the statistics of the layer that the reader chooses, one line per run."""
    known = [(line, bounded(run.record)) for line, run in runs if run.record and _has(run)]
    names = layer_names_of_runs(record for _, record in known)
    charts = []
    for name, title, axis, factor in STATISTICS:
        of_each = []  # the rows of each run, which its layers refer to
        for line, record in known:
            rows = arrays.rows(_scaled(getattr(record, name), factor).T)
            of_each.append((line, record, arrays.add(record.watched), rows))
        variants = []
        for layer in names:
            traces = [
                trace(line, steps, rows[record.layer(layer)])
                for line, record, steps, rows in of_each
                if layer in record.layers
            ]
            variants.append(spec(axis, traces, **_range(factor)))
        title = _title(title, [record for _, record in known])
        charts.append(Chart(_id(name), title, variants))
    lines = [line for line, _ in known]
    return Charts(charts, lines, "layer", names, chosen=penultimate(names))


def layer_names_of_runs(records: Iterable[Record]) -> list[str]:
    """Returns the names of the networks' layers, each once, in the order of their calls."""
    names = (record.layers[i] for record in records for i in network_columns(record))
    return list(dict.fromkeys(names))


def penultimate(names: Sequence[str]) -> int:
    """Returns the index of the layer before the last, which the chapter plots."""
    return max(len(names) - 2, 0)


def has_parameters(record: Record | None) -> bool:
    """Whether the record has gradients or updates."""
    parameters = None if record is None else record.parameters
    return parameters is not None and bool(_kept(parameters)) and bool(parameters.names)


def parameters_of_one(record: Record, columns: Sequence[int], arrays: TypedArrays) -> Charts:
    """Returns charts of the gradient norms and update-to-weight ratios of these columns."""
    parameters = bounded(record).parameters
    assert parameters is not None
    lines = ordered_lines([parameters.names[i] for i in columns])
    charts = []
    for name, title, axis, values in _kept(parameters):
        # A logarithmic axis cannot show zero.
        shown = np.where(values > 0, values, np.nan)[:, columns].astype(np.float32)
        rows, steps = arrays.rows(shown.T), arrays.add(parameters.watched)
        traces = [trace(line, steps, row) for line, row in zip(lines, rows, strict=True)]
        rule = {"rule": RULE_OF_THUMB} if name == "update-ratio" else {}
        charts.append(Chart(name, title, [spec(f"{axis} (log scale)", traces, **rule)]))
    return Charts(charts, lines)


def _kept(
    parameters: ParameterRecord,
) -> list[tuple[str, str, str, Float[np.ndarray, "rows parameters"]]]:
    """Returns the id, the title, the axis and the values of each chart."""
    kept: list[tuple[str, str, str, Float[np.ndarray, "rows parameters"]]] = []
    if len(parameters.grad_norm):
        norm = parameters.grad_norm
        kept.append(("gradient-norm", "Norm of the gradient", "norm", norm))
    if len(parameters.update_norm):
        ratio = parameters.update_ratio
        kept.append(("update-ratio", "Norm of the update over that of the weights", "ratio", ratio))
    return kept


def _has(run: NamedRun) -> bool:
    return has_layers(run.record)


def _scaled(
    values: Float[np.ndarray, "rows layers"], factor: int | float
) -> Float[np.ndarray, "rows layers"]:
    return np.asarray(values * np.float32(factor)) if factor != 1 else values


def _range(factor: int | float) -> dict[str, Any]:
    # Percentages are shown against the whole.
    return {"range": [0, 100]} if factor == 100 else {}


def _id(name: str) -> str:
    return "layers-" + name.replace("_", "-")
