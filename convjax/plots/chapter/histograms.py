"""Drawings of how the colourful dimension is built from histograms, and of its colour scale."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Real

from convjax.plots import heatmap
from convjax.plots.chapter.grids import FONT
from convjax.plots.figure import ORANGE, new_figure
from convjax.stats.record import Record

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

WIDTHS = (3.2, 0.75, 5.2)  # relative widths of the panels: a histogram, a column, all columns
MAX_STEPS = 6  # of a summary, whose panels remain readable
LEVELS = 256  # colours of a colour map, and levels of a channel of a screen


def histogram_column(record: Record, layer: int | str, step: int) -> "matplotlib.figure.Figure":
    """Draws the histogram of one step, the same as a column of colours, and all columns.

    Both the length and the colour of a bar are log(1 + count).

    Args:
      record: a record with histograms.
      layer: a name, or an index that may be negative.
      step: a step of the training, from 0. Of merged steps the mean is drawn.

    Raises:
      KeyError: if the record has no layer of this name.
      IndexError: if the record has no layer of this index.
      ValueError: if it has no histograms, or no such step.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Recorder, drawings, layer_stats
      >>> recorder = Recorder()
      >>> for step in range(3):
      ...     recorder.add(2.0, layer_stats({"conv": jnp.arange(8.0) * step}))
      >>> figure = drawings.histogram_column(recorder.record(), "conv", step=1)
      >>> figure.axes[0].get_title()
      '1. histogram at step 1'
    """
    column, row = _row(record, layer, step)
    counts = heatmap.layer_counts(record, column)
    top = heatmap.highest_count(counts)
    across, up = heatmap.column_edges(record), record.hist_edges
    figure = new_figure(12, 5.2)
    bars, cells, image = figure.subplots(1, 3, sharey=True, width_ratios=WIDTHS)
    _draw_bars(bars, up, np.log1p(counts[row]), float(np.log1p(top)))
    bars.set(title=f"1. histogram at step {step}", ylabel=f"output of {record.layers[column]}")
    heatmap.set_count_ticks(bars.xaxis, top, fontsize=FONT - 1)
    bars.set_xlabel("values per bin, log(1 + count)")
    mesh = heatmap.draw_mesh(cells, np.arange(2), up, counts[row : row + 1], top)
    cells.set(title="2. colours", xticks=[])
    cells.spines[:].set(edgecolor=ORANGE, linewidth=1.6)  # as its place in the third panel
    heatmap.draw_mesh(image, across, up, counts, top)
    image.set(title=f"3. all {len(counts)} columns side by side", xlabel="step")
    image.axvspan(*across[row : row + 2], fill=False, edgecolor=ORANGE, linewidth=1.6)
    heatmap.draw_count_bar(figure, mesh, image, top)
    return figure


def histogram_summary(
    record: Record, layer: int | str, steps: Sequence[int]
) -> "matplotlib.figure.Figure":
    """Draws how the colourful dimension is made: counts, their logarithms, colours, all columns.

    Args:
      record: a record with histograms.
      layer: a name, or an index that may be negative.
      steps: at most six steps of the training, from 0, one column of panels for each.

    Raises:
      KeyError: if the record has no layer of this name.
      IndexError: if the record has no layer of this index.
      ValueError: if it has no histograms, no such step, or steps are none or more than six.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Recorder, drawings, layer_stats
      >>> recorder = Recorder()
      >>> for step in range(3):
      ...     recorder.add(2.0, layer_stats({"conv": jnp.arange(8.0) * step}))
      >>> figure = drawings.histogram_summary(recorder.record(), "conv", [0, 2])
      >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
      ['all 3 columns side by side', 'step 0', 'step 2']
    """
    if not 1 <= len(steps) <= MAX_STEPS:
        raise ValueError(
            f"steps must be one to {MAX_STEPS} steps, got {len(steps)}. Pass those to be drawn."
        )
    column = _row(record, layer, steps[0])[0]
    rows = [_row(record, layer, step)[1] for step in steps]
    counts = heatmap.layer_counts(record, column)
    top = heatmap.highest_count(counts)
    across, up = heatmap.column_edges(record), record.hist_edges
    figure = new_figure(12, 10)
    grid = figure.add_gridspec(
        3, 2 * len(steps), width_ratios=(5, 1) * len(steps), height_ratios=(1, 1, 1.3)
    )
    image = figure.add_subplot(grid[2, :])
    mesh = heatmap.draw_mesh(image, across, up, counts, top)
    power = 10 ** int(np.log10(top))
    ends = [0, int(top // power * power)]  # more labels would touch
    labels = [f"{end:,}" for end in ends]
    panels = []
    for i, (step, row) in enumerate(zip(steps, rows, strict=True)):
        bars = figure.add_subplot(grid[0, 2 * i : 2 * i + 2], sharey=image)
        logs = figure.add_subplot(grid[1, 2 * i], sharey=image)
        cells = figure.add_subplot(grid[1, 2 * i + 1], sharey=image)
        _draw_bars(bars, up, counts[row], top)
        bars.set(title=f"step {step}", xlabel="count")
        bars.set_xticks(ends, labels=labels)
        _draw_bars(logs, up, np.log1p(counts[row]), float(np.log1p(top)))
        logs.set_xlabel("log(1 + count)")
        logs.set_xticks(np.log1p(ends), labels=labels)
        heatmap.draw_mesh(cells, np.arange(2), up, counts[row : row + 1], top)
        cells.set(xticks=[])
        cells.spines[:].set(edgecolor=ORANGE, linewidth=1.6)  # as its place among all columns
        panels += [bars, logs, cells]
        image.axvspan(*across[row : row + 2], fill=False, edgecolor=ORANGE, linewidth=1.6)
    for panel in panels[2:]:
        panel.tick_params(labelleft=False)
    for panel in (*panels[:2], image):
        panel.set_ylabel(f"output of {record.layers[column]}")
    image.set(title=f"all {len(counts)} columns side by side", xlabel="step")
    heatmap.draw_count_bar(figure, mesh, image, top)
    return figure


def why_logarithm(record: Record, layer: int | str, step: int) -> "matplotlib.figure.Figure":
    """Draws one histogram and all columns twice: above as counts, below as log(1 + count).

    Args:
      record: a record with histograms.
      layer: a name, or an index that may be negative.
      step: a step of the training, from 0.

    Raises:
      KeyError: if the record has no layer of this name.
      IndexError: if the record has no layer of this index.
      ValueError: if it has no histograms, or no such step.
    """
    column, row = _row(record, layer, step)
    counts = heatmap.layer_counts(record, column)
    top = heatmap.highest_count(counts)
    across, up = heatmap.column_edges(record), record.hist_edges
    figure = new_figure(12, 8)
    panels = figure.subplots(2, 3, sharey=True, width_ratios=WIDTHS)
    for (bars, cells, image), log in zip(panels, (False, True), strict=True):
        heights = np.log1p(counts) if log else counts
        longest = float(np.log1p(top)) if log else top
        scale = "log(1 + count)" if log else "count"
        _draw_bars(bars, up, heights[row], longest)
        bars.set(ylabel=f"output of {record.layers[column]}", title=f"{scale}, step {step}")
        bars.set_xlabel(f"values per bin, {scale}")
        heatmap.draw_mesh(cells, np.arange(2), up, counts[row : row + 1], top, log=log)
        cells.set(title="colours", xticks=[])
        mesh = heatmap.draw_mesh(image, across, up, counts, top, log=log)
        hidden = hidden_percent(heights, longest)
        image.set(xlabel="step", title=f"{hidden:.0f} % of the filled bins look empty")
        if log:
            heatmap.set_count_ticks(bars.xaxis, top, fontsize=FONT - 1)
            heatmap.draw_count_bar(figure, mesh, image, top)
        else:
            bars.locator_params(axis="x", nbins=4)
            bar = figure.colorbar(mesh, ax=image, label=f"values per bin, {scale}")
            for axis in (bars.xaxis, bar.ax.yaxis):
                axis.set_major_formatter("{x:,.0f}")
    return figure


def hidden_percent(heights: Real[np.ndarray, "..."], top: int | float) -> float:
    """Returns the percentage of filled bins that have the colour of an empty bin.

    Args:
      heights: the quantity that the colour encodes, 0 for an empty bin.
      top: its value at the brightest of 256 colours.

    Examples:
      >>> import numpy as np
      >>> from convjax.plots.chapter.histograms import hidden_percent
      >>> hidden_percent(np.array([0.0, 1.0, 3.0, 4.0, 1024.0]), 1024.0)
      50.0
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
            f"step must be one of the record's, from {first} to {record.steps - 1}, got {step}. "
            "Pass a step in this range."
        )
    return column, int(np.searchsorted(record.watched, step, side="right")) - 1


def _draw_bars(
    axes: "matplotlib.axes.Axes",
    edges: Float[np.ndarray, " edges"],
    heights: Real[np.ndarray, " bins"],
    top: int | float,
) -> None:
    from matplotlib import colormaps

    axes.barh(
        edges[:-1],
        heights,
        height=np.diff(edges),
        align="edge",
        color=colormaps[heatmap.COLORMAP](heights / top),
        edgecolor="0.4",
        linewidth=0.4,
    )
    axes.set(xlim=(0, 1.05 * top), ylim=(edges[0], edges[-1]))
