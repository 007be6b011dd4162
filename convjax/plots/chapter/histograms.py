"""How the colourful dimension is built from histograms, and why its colours are logarithms."""

from typing import TYPE_CHECKING

import numpy as np

from convjax.plots.chapter.grids import FONT
from convjax.plots.figure import ORANGE, new_figure
from convjax.stats.record import Array, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

WIDTHS = (3.2, 0.75, 5.2)  # of the panels: a histogram, a column, all columns
LEVELS = 256  # colours of a colour map, and of a screen's channel


def histogram_column(record: Record, layer: int | str, step: int) -> "Figure":
    """Draws a histogram at one step, the same as a column of colours, and it among all columns.

    Length and colour of a bar both stand for log(1 + count).

    Args:
      record: with histograms.
      layer: a name, or an index that may be negative.
      step: of the training, from 0. A row of merged steps is drawn with its mean.

    Raises:
      KeyError, IndexError: if the record has no such layer.
      ValueError: if it has no histograms, or no such step.
    """
    column, row = _row(record, layer, step)
    counts = counts_of(record, column)
    top = float(np.log1p(counts.max(initial=1)))
    figure = new_figure(12, 5.2)
    bars, cells, picture = figure.subplots(1, 3, sharey=True, width_ratios=WIDTHS)
    _bars(bars, record, np.log1p(counts[row]), top)
    bars.set(title=f"1. histogram at step {step}", ylabel=f"output of {record.layers[column]}")
    _count_ticks(bars.xaxis, counts.max(initial=1))
    bars.set_xlabel("values per bin, log(1 + count)")
    mesh = _mesh(cells, record, np.log1p(counts[row : row + 1]), top, [0, 1])
    cells.set(title="2. colours", xticks=[])
    cells.spines[:].set(edgecolor=ORANGE, linewidth=1.6)  # as its place in the third panel
    _mesh(picture, record, np.log1p(counts), top, _edges(record))
    picture.set(title=f"3. all {len(counts)} columns side by side", xlabel="step")
    left, right = _edges(record)[row : row + 2]
    picture.axvspan(left, right, fill=False, edgecolor=ORANGE, linewidth=1.6)
    bar = figure.colorbar(mesh, ax=picture, label="values per bin, log(1 + count)")
    _count_ticks(bar.ax.yaxis, counts.max(initial=1))
    return figure


def why_logarithm(record: Record, layer: int | str, step: int) -> "Figure":
    """Draws one histogram and all columns twice: above with counts, below with log(1 + count).

    Arguments and errors as for `histogram_column`.
    """
    column, row = _row(record, layer, step)
    counts = counts_of(record, column)
    most = float(counts.max(initial=1))
    figure = new_figure(12, 8)
    panels = figure.subplots(2, 3, sharey=True, width_ratios=WIDTHS)
    for (bars, cells, picture), heights, top, word in zip(
        panels,
        (counts, np.log1p(counts)),
        (most, float(np.log1p(most))),
        ("count", "log(1 + count)"),
        strict=True,
    ):
        _bars(bars, record, heights[row], top)
        bars.set(ylabel=f"output of {record.layers[column]}", title=f"{word}, step {step}")
        bars.set_xlabel(f"values per bin, {word}")
        _mesh(cells, record, heights[row : row + 1], top, [0, 1])
        cells.set(title="colours", xticks=[])
        mesh = _mesh(picture, record, heights, top, _edges(record))
        told = hidden(heights, top)
        picture.set(xlabel="step", title=f"{told:.0f} % of the filled bins look empty")
        bar = figure.colorbar(mesh, ax=picture, label=f"values per bin, {word}")
        if word != "count":
            _count_ticks(bars.xaxis, most)
            _count_ticks(bar.ax.yaxis, most)
        else:
            bars.locator_params(axis="x", nbins=4)
            for axis in (bars.xaxis, bar.ax.yaxis):
                axis.set_major_formatter("{x:,.0f}")
    return figure


def counts_of(record: Record, layer: int | str) -> Array:
    """Returns the counts of a layer's histograms per step, (rows, bins).

    Raises:
      KeyError, IndexError: if the record has no such layer.
      ValueError: if it has no histograms.
    """
    record.check_histograms()
    return np.asarray(record.hist[:, record.layer(layer)] / record.watched_count[:, None])


def hidden(heights: Array, top: float) -> float:
    """Returns how many percent of the bins that hold a value have the colour of an empty bin.

    Args:
      heights: what the colour stands for, 0 where a bin is empty.
      top: what the brightest of 256 colours stands for.
    """
    filled = heights > 0
    if not filled.any():
        return 0.0
    return float(100 * np.mean(heights[filled] * LEVELS < top))


def _row(record: Record, layer: int | str, step: int) -> tuple[int, int]:
    """Returns the column of a layer and the row that holds a step."""
    column = record.layer(layer)
    record.check_histograms()
    if not len(record.watched) or not record.watched[0] <= step < record.steps:
        first = record.watched[0] if len(record.watched) else "none"
        raise ValueError(
            f"step must be one of the record's, from {first} to {record.steps - 1}, got {step}."
        )
    return column, int(np.searchsorted(record.watched, step, side="right")) - 1


def _edges(record: Record) -> Array:
    return np.append(record.watched, record.steps) - 0.5


def _bars(axes: "Axes", record: Record, heights: Array, top: float) -> None:
    from matplotlib import colormaps

    edges = record.hist_edges
    axes.barh(
        edges[:-1],
        heights,
        height=np.diff(edges),
        align="edge",
        color=colormaps["viridis"](heights / top),
        edgecolor="0.4",
        linewidth=0.4,
    )
    axes.set(xlim=(0, 1.05 * top), ylim=(edges[0], edges[-1]))


def _mesh(
    axes: "Axes", record: Record, heights: Array, top: float, across: Array | list[int]
) -> "QuadMesh":
    return axes.pcolormesh(
        across, record.hist_edges, heights.T, cmap="viridis", vmin=0, vmax=top, rasterized=True
    )


def _count_ticks(axis: "Axis", most: float) -> None:
    """Labels an axis of log(1 + count) in counts."""
    # 1 would lie so close to 0 that the two labels touched.
    ticks = [0, *(10**i for i in range(1, int(np.log10(max(most, 1))) + 1))]
    axis.set_ticks(np.log1p(ticks), labels=[f"{tick:,}" for tick in ticks], fontsize=FONT - 1)
