"""What all pictures have in common: the figure, its colours, its caption."""

import textwrap
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from convjax.stats.record import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion, which colour-blind readers tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"

# A panel has fewer pixels than this, so that more columns could not be told apart.
MAX_COLUMNS = 1000


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure whose layout keeps labels from being cut off or overlapping.

    Args:
      width, height: inches; figures are 100 pixels each unless `savefig` is told otherwise.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError(
            'pictures need matplotlib, which is not installed: pip install "convjax[plots]"'
        ) from error
    # Inches around every panel: with matplotlib's 0.04 labels touch the neighbouring panel.
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(width, height), layout=layout)
    # Notebooks ask an object for its PNG; matplotlib answers only for figures of pyplot.
    vars(figure)["_repr_png_"] = partial(_png, figure)
    return figure


def caption(figure: "Figure", text: str) -> None:
    """Writes text under the panels, broken where the figure ends."""
    # Small letters are about 0.068 inches wide.
    width = int(figure.get_figwidth() / 0.068)
    figure.supxlabel(textwrap.fill(text, width), x=0.01, ha="left", fontsize="small")


def check_steps(steps: Array) -> None:
    """Raises ValueError if there is no step to draw."""
    if not len(steps):
        raise ValueError("record must hold at least one step to draw, got none.")


def _png(figure: "Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
