"""Charts of colourful dimensions: the histograms of each layer at all steps, on one scale."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from convjax.diagnosis.evidence import network_columns
from convjax.plots import heatmap
from convjax.plots.figure import MAX_COLUMNS
from convjax.report.components import Chart, Charts, LineStyle
from convjax.report.layer_charts import layer_names_of_runs, penultimate
from convjax.report.named_run import NamedRun
from convjax.report.typed_arrays import TypedArrays
from convjax.stats.record import Record

_SEVERAL_COLUMNS = 500  # of each run of several, which are side by side


def has_histograms(record: Record | None) -> bool:
    """Whether the record has histograms of the network's own layers."""
    if record is None or not network_columns(record):
        return False
    return 0 < len(record.watched) <= len(record.hist)


def dimensions_of_one(record: Record, columns: Sequence[int], arrays: TypedArrays) -> Charts:
    """Returns one chart per layer of these columns."""
    record = record.merged(MAX_COLUMNS)
    heatmaps = [_heatmap(record, i) for i in columns]
    scale = _scale(heatmaps)
    return Charts(
        [
            Chart(
                f"dimension-{n}", record.layers[i], [_spec(record, shown, arrays, scale)], tall=True
            )
            for n, (i, shown) in enumerate(zip(columns, heatmaps, strict=True))
        ]
    )


def dimensions_of_several(
    runs: Sequence[tuple[LineStyle, NamedRun]], arrays: TypedArrays
) -> Charts:
    """Returns one chart per run, of the layer that the reader chooses, all on one scale."""
    known = [
        (line, run.record.merged(_SEVERAL_COLUMNS))
        for line, run in runs
        if run.record and has_histograms(run.record)
    ]
    names = layer_names_of_runs(record for _, record in known)
    heatmaps = [
        {layer: _heatmap(record, layer) for layer in names if layer in record.layers}
        for _, record in known
    ]
    scale = _scale([shown for by_layer in heatmaps for shown in by_layer.values()])
    charts = []
    for n, ((line, record), by_layer) in enumerate(zip(known, heatmaps, strict=True)):
        variants = [
            _spec(record, by_layer[layer], arrays, scale)
            if layer in by_layer
            else {"kind": "none", "text": f"This run has no layer {layer}."}
            for layer in names
        ]
        charts.append(Chart(f"dimension-{n}", line.name, variants, tall=True))
    return Charts(charts, choice="layer", choices=names, chosen=penultimate(names))


class _Heatmap(NamedTuple):
    """A layer's counts per step, and the percentages of values outside the bins."""

    counts: Float[np.ndarray, "bins columns"]
    over: Float[np.ndarray, " columns"]
    under: Float[np.ndarray, " columns"]


def _heatmap(record: Record, layer: int | str) -> _Heatmap:
    counts = heatmap.layer_counts(record, layer)
    under, over = (p.astype(np.float32) for p in heatmap.outside_percent(record, layer))
    return _Heatmap(np.ascontiguousarray(counts.T, np.float32), over, under)


def _scale(heatmaps: Sequence[_Heatmap]) -> dict[str, Any]:
    """Returns the largest count with the ticks of the colour bar, and the end of the strips."""
    top = heatmap.highest_count(*(shown.counts for shown in heatmaps))
    strips = [strip for shown in heatmaps for strip in (shown.over, shown.under)]
    return {
        "top": top,
        "ticks": heatmap.count_ticks(top),
        "strip": heatmap.highest_percent(*strips),
    }


def _spec(
    record: Record, shown: _Heatmap, arrays: TypedArrays, scale: dict[str, Any]
) -> dict[str, Any]:
    low, high = map(float, record.hist_edges[[0, -1]])
    return {
        "kind": "dimension",
        "columns": arrays.add(heatmap.column_edges(record)),
        "bins": arrays.add(record.hist_edges),
        "counts": arrays.add(shown.counts),
        "steps": arrays.add(record.watched),
        "over": arrays.add(shown.over),
        "under": arrays.add(shown.under),
        "low": low,
        "high": high,
        **scale,
    }


def column_caption(record: Record) -> str:
    """Returns what a column of a chart shows."""
    return heatmap.describe_columns(heatmap.steps_per_column(record.merged(MAX_COLUMNS)))


def bins_caption(records: Sequence[Record]) -> str:
    """Returns what the bins of the charts hold, once per kind of bins."""
    return " ".join(dict.fromkeys(heatmap.describe_bins(record, "Empty") for record in records))
