"""The figure, the colours and the caption that all plots share."""

import textwrap
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from convjax.stats.record import Record

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# Blue and vermilion of Okabe and Ito, which colour-blind readers can distinguish.
BLUE, ORANGE = "#0072B2", "#D55E00"

MAX_COLUMNS = 1000  # of a heatmap: a panel has fewer pixels


Size = tuple[int | float, int | float] | None  # width and height, inches


def new_figure(
    width: int | float, height: int | float, figsize: Size = None
) -> "matplotlib.figure.Figure":
    """Returns an empty figure whose layout prevents labels from being cut off or overlapping.

    Args:
      width: inches; an inch is 100 pixels unless `savefig` gets another dpi.
      height: inches.
      figsize: width and height instead, where the user has given them.

    Raises:
      ImportError: if matplotlib is not installed.

    Examples:
      >>> from convjax import plots
      >>> plots.new_figure(6, 3).get_size_inches().tolist()
      [6.0, 3.0]
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            'plots need matplotlib, which is not installed. Run: pip install "convjax[plots]"'
        ) from error
    # Inches around every panel. With matplotlib's 0.04, labels touch the neighbouring panel.
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(width, height) if figsize is None else figsize, layout=layout)
    shown_in_notebooks(figure, figure)
    return figure


def shown_in_notebooks(
    drawing: "matplotlib.figure.Figure | matplotlib.axes.Axes", figure: "matplotlib.figure.Figure"
) -> None:
    """Makes a notebook show the figure where a cell ends with the drawing."""
    # Notebooks call this method; matplotlib provides it only for figures of pyplot.
    vars(drawing)["_repr_png_"] = partial(_png, figure)


def caption(figure: "matplotlib.figure.Figure", text: str) -> None:
    """Writes text below the panels, wrapped to the width of the figure."""
    width = int(figure.get_figwidth() / 0.068)  # inches per small letter
    figure.supxlabel(textwrap.fill(text, width), x=0.01, ha="left", fontsize="small")


def label_steps(axes: "matplotlib.axes.Axes") -> None:
    """Labels the horizontal axis as steps, which are whole numbers."""
    axes.set(xlabel="step")
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)


def check_steps(steps: Shaped[np.ndarray, " rows"]) -> None:
    """Raises ValueError if there is no step to draw."""
    if not len(steps):
        raise ValueError(
            "record must hold at least one step to draw, got none. Draw it after the first step."
        )


def point_style(values: Float[np.ndarray, " rows"]) -> dict[str, Any]:
    """Returns the style of a line that marks points without a finite neighbour.

    A line of one step, or a value between two NaN, would otherwise be invisible.
    """
    finite = np.pad(np.isfinite(values), 1)
    alone = np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:])
    style = {"marker": "o", "markersize": 4, "markevery": alone.tolist()}
    return style if len(alone) else {}


def check_layers(record: Record) -> None:
    """Raises ValueError if there are no statistics of layers to draw."""
    check_steps(record.first)
    if not len(record.watched) or not record.layers:
        raise ValueError(
            "record must hold statistics of layers, got none. Train with Watch(), or give "
            "Recorder.add what layer_stats(outputs) returns."
        )


def _png(figure: "matplotlib.figure.Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
