"""Heatmaps of histograms over steps: counts, colour scale, ticks and the text that explains them.

Every drawing of the colourful dimension uses these functions.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Real

from convjax.stats.record import Record

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.axis
    import matplotlib.collections
    import matplotlib.figure

COLORMAP = "viridis"
NAN_COLOR = "0.85"  # light grey, which is not in the colour map

HOW_TO_READ = (
    "Each column is the histogram of a layer's outputs at one point of the training: the brighter "
    "a bin, the more values it holds. Outputs are taken before a ReLU that follows. Bright bands "
    "that rise and collapse show values that grow, crash and start again. In a healthy training "
    "the image fills smoothly and stays filled."
)


def layer_counts(
    record: Record, layer: int | str, size: int = 1
) -> Float[np.ndarray, "columns bins"]:
    """Returns a layer's counts per step, averaged over groups of rows.

    A step has as many values as `Record.sizes` says: the counts of a smaller batch are scaled up,
    which would otherwise look like a darker stripe. A column is NaN where all of its values were
    NaN; otherwise it would look like a layer whose values all lie outside the bins.

    Args:
      record: a record with histograms.
      layer: a name, or an index that may be negative.
      size: rows of the record per column.

    Raises:
      KeyError, IndexError: if the record has no such layer.
      ValueError: if it has no histograms.
    """
    record.check_histograms()
    column = record.layer(layer)
    starts = np.arange(0, len(record.watched), size)
    values = np.add.reduceat(record.values[:, column], starts)[:, None]
    steps = values / record.sizes[column]  # of batches of that size
    counts = np.add.reduceat(record.hist[:, column], starts, axis=0) / steps
    nan = np.add.reduceat(record.nan()[:, column], starts)[:, None]
    return np.where(nan == values, np.nan, counts)


def outside_percent(
    record: Record, layer: int | str
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Returns the percentages of a layer's values below and above the bins.

    Rows are NaN where all values were NaN.
    """
    column = record.layer(layer)
    values = record.values[:, column].astype(np.float64)
    nan = record.nan()[:, column] == values
    under, over = (
        np.where(nan, np.nan, 100 * counts[:, column] / values)
        for counts in (record.under, record.over)
    )
    return under, over


def column_edges(record: Record, size: int = 1) -> Float[np.ndarray, " edges_x"]:
    """Returns where the columns begin and end; each reaches to the next watched step."""
    return np.append(record.watched[::size], record.steps) - 0.5


def highest_count(*counts: Real[np.ndarray, "..."]) -> float:
    """Returns the largest count, which has the brightest colour; at least 1, whatever is NaN."""
    return max(1.0, *(float(np.nanmax(count, initial=0)) for count in counts))


def highest_percent(*percent: Real[np.ndarray, "..."]) -> float:
    """Returns the upper end of an axis of percentages, at least 1: less is negligible."""
    return max(1.0, *(1.1 * float(np.nanmax(values, initial=0)) for values in percent))


def count_ticks(top: int | float) -> list[int]:
    """Returns the counts that label an axis of log(1 + count).

    Examples:
      >>> from convjax.plots.heatmap import count_ticks
      >>> count_ticks(2500.0)
      [0, 10, 100, 1000]
    """
    # 1 would lie so close to 0 that the two labels would touch.
    return [0, *(10**i for i in range(1, int(np.log10(max(top, 1))) + 1))]


def set_count_ticks(axis: "matplotlib.axis.Axis", top: int | float, **style: Any) -> None:
    """Labels an axis of log(1 + count) with counts.

    Args:
      axis: of a panel or of a colour bar.
      top: the largest count.
      style: of the labels, as `matplotlib.axis.Axis.set_ticks` takes it.
    """
    ticks = count_ticks(top)
    axis.set_ticks(np.log1p(ticks).tolist(), labels=[f"{tick:,}" for tick in ticks], **style)
    axis.set_ticks([], minor=True)


def draw_mesh(
    axes: "matplotlib.axes.Axes",
    across: Real[np.ndarray, " edges_x"],
    up: Real[np.ndarray, " edges_y"],
    counts: Real[np.ndarray, "columns bins"],
    top: int | float,
    *,
    log: bool = True,
) -> "matplotlib.collections.QuadMesh":
    """Draws counts as colours, on a scale from 0 to `top`; NaN is grey.

    Args:
      axes: the panel.
      across: edges of the columns.
      up: edges of the bins.
      counts: one row per column of the drawing.
      top: the count with the brightest colour.
      log: the colour is log(1 + count), otherwise the count.
    """
    axes.set_facecolor(NAN_COLOR)
    return axes.pcolormesh(
        across,
        up,
        (np.log1p(counts) if log else counts).T,
        cmap=COLORMAP,
        vmin=0,
        vmax=np.log1p(top) if log else top,
        rasterized=True,  # a PDF would otherwise hold every cell
    )


def draw_count_bar(
    figure: "matplotlib.figure.Figure",
    mesh: "matplotlib.collections.QuadMesh",
    panels: Any,
    top: int | float,
    *,
    what: str = "values",
) -> None:
    """Draws the colour bar of `draw_mesh`, labelled in counts.

    Args:
      figure: the figure of the panels.
      mesh: as `draw_mesh` returns it.
      panels: one panel or an array of panels, beside which the bar is placed.
      top: the count with the brightest colour.
      what: what is counted.
    """
    bar = figure.colorbar(mesh, ax=panels, label=f"{what} per bin, log(1 + count)")
    set_count_ticks(bar.ax.yaxis, top)


def steps_per_column(record: Record, size: int = 1) -> int:
    """Returns the largest number of watched steps in a column of the heatmap."""
    starts = np.arange(0, len(record.watched), size)
    return int(np.add.reduceat(record.watched_count, starts).max(initial=1))


def describe_columns(steps: int) -> str:
    """Returns what a column of `steps` watched steps shows.

    Examples:
      >>> from convjax.plots.heatmap import describe_columns
      >>> describe_columns(3)
      'the mean of up to 3 neighbouring watched steps'
    """
    return "one step" if steps == 1 else f"the mean of up to {steps} neighbouring watched steps"


def describe_bins(record: Record, nan: str) -> str:
    """Returns what the bins hold and what the strips beside them show.

    Args:
      record: a record with histograms.
      nan: the colour of columns that hold nothing but NaN, such as "Grey".
    """
    edges = record.hist_edges
    text = f"There are {len(edges) - 1} bins from {edges[0]:g} to {edges[-1]:g}."
    if edges[0] == 0:
        text += (
            f" The bottom row counts {edges[0]:g} to {edges[1]:g}, zeros included: where it is "
            "bright and the rows above are dark, nearly all values are negative or near zero."
        )
    return f"{text} The strips show the percentage of values outside the bins. {nan}: only NaN."
