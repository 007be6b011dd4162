"""Colour dimensions: each layer's histogram at every step, on one scale of colours for a page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convjax.diagnosis.evidence import network_columns
from convjax.plots.figure import MAX_COLUMNS
from convjax.report.components import Chart, Charts, LineStyle
from convjax.report.layer_charts import layer_names, penultimate
from convjax.report.named_run import NamedRun
from convjax.report.typed_arrays import TypedArrays
from convjax.stats.activations import HIST_RANGE
from convjax.stats.record import Array, Record

# Several runs lie side by side and have fewer pixels each.
_SEVERAL_COLUMNS = 500


def has_histograms(record: Record | None) -> bool:
    """Whether there are histograms of the network's own layers."""
    if record is None or not network_columns(record):
        return False
    return 0 < len(record.watched) <= len(record.hist)


def dimensions_of_one(record: Record, arrays: TypedArrays) -> Charts:
    """Returns one chart per layer."""
    record = record.merged(MAX_COLUMNS)
    columns = network_columns(record)
    shown = [_shown(record, i) for i in columns]
    scale = _scale(shown)
    return Charts(
        [
            Chart(f"dimension-{n}", record.layers[i], [_spec(record, of, arrays, scale)], tall=True)
            for n, (i, of) in enumerate(zip(columns, shown, strict=True))
        ]
    )


def dimensions_of_several(
    runs: Sequence[tuple[LineStyle, NamedRun]], arrays: TypedArrays
) -> Charts:
    """Returns one chart per run, of the layer that the reader chooses; all have one scale."""
    known = [
        (line, run.record.merged(_SEVERAL_COLUMNS))
        for line, run in runs
        if run.record and has_histograms(run.record)
    ]
    names = layer_names(record for _, record in known)
    shown = [
        {layer: _shown(record, record.layer(layer)) for layer in names if layer in record.layers}
        for _, record in known
    ]
    scale = _scale([of for by_layer in shown for of in by_layer.values()])
    charts = []
    for n, ((line, record), by_layer) in enumerate(zip(known, shown, strict=True)):
        variants = [
            _spec(record, by_layer[layer], arrays, scale)
            if layer in by_layer
            else {"kind": "none", "text": f"This run has no layer {layer}."}
            for layer in names
        ]
        charts.append(Chart(f"dimension-{n}", line.name, variants, tall=True))
    return Charts(charts, choice="layer", choices=names, chosen=penultimate(names))


_Shown = tuple[Array, Array, Array]


def _shown(record: Record, column: int) -> _Shown:
    """Returns the counts per step, (40, S), and the shares over and under the bins, (S,), in
    percent: NaN where all values are NaN."""
    values = record.values[:, column].astype(np.float64)
    lost = record.nan()[:, column] == record.values[:, column]
    counts = record.hist[:, column] / record.watched_count[:, None]
    # Without this a diverged layer would look like one whose values all lie outside the bins.
    counts[lost] = np.nan
    shares = [100 * outside[:, column] / values for outside in (record.over, record.under)]
    over, under = (np.where(lost, np.nan, share).astype(np.float32) for share in shares)
    return np.ascontiguousarray(counts.T, np.float32), over, under


def _scale(shown: Sequence[_Shown]) -> dict[str, float]:
    """Returns the largest count of all, and the largest share outside the bins."""
    top = max((float(np.nanmax(counts, initial=1)) for counts, _, _ in shown), default=1.0)
    strips = [share for _, *shares in shown for share in shares]
    # At least to 1 %: less is negligible and shall look so.
    strip = max((1.1 * float(np.nanmax(share, initial=0)) for share in strips), default=0.0)
    return {"top": top, "strip": max(strip, 1.0)}


def _spec(
    record: Record, shown: _Shown, arrays: TypedArrays, scale: dict[str, float]
) -> dict[str, Any]:
    counts, over, under = shown
    low, high = HIST_RANGE
    return {
        "kind": "dimension",
        # A column reaches to the next watched step.
        "columns": arrays.add(np.append(record.watched, record.steps) - 0.5),
        "bins": arrays.add(record.hist_edges),
        "counts": arrays.add(counts),
        "steps": arrays.add(record.watched),
        "over": arrays.add(over),
        "under": arrays.add(under),
        "low": low,
        "high": high,
        **scale,
    }


def columns_in_words(record: Record) -> str:
    """Returns what a column of a chart stands for."""
    most = int(record.merged(MAX_COLUMNS).watched_count.max(initial=1))
    return "one step" if most == 1 else f"the mean of up to {most} neighbouring watched steps"
