"""Tables of coloured cells with numbers, on a canvas that is measured in inches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convjax.plots.figure import new_figure
from convjax.stats.record import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE = "0.15", "0.45"  # of words, and of those that may be passed over
FONT = 10.0  # points


class Cells(NamedTuple):
    """Where a table lies on a canvas, in inches from the upper left.

    Attributes:
      left, top: its corner.
      side: of a cell.
      shape: (rows, columns).
    """

    left: float
    top: float
    side: float
    shape: tuple[int, int]

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.shape[1] * self.side

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.shape[0] * self.side

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre (x, y)."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def centre(self, row: float, column: float) -> tuple[float, float]:
        """Returns the middle (x, y) of a cell."""
        return self.left + (column + 0.5) * self.side, self.top + (row + 0.5) * self.side


def canvas(width: float, height: float) -> "tuple[Figure, Axes]":
    """Returns a figure and axes over all of it, whose units are inches, y downwards."""
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # every place on a canvas is given
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def draw_cells(
    axes: "Axes",
    name: str,
    colors: Array,
    cells: Cells,
    *,
    texts: Sequence[Sequence[str]] | None = None,
    fontsize: float = FONT,
    lines: bool = True,
) -> None:
    """Draws a table.

    Args:
      name: the `gid` of its artists, by which they are found again.
      colors: RGBA or RGB from 0 to 1, (rows, columns, 4 or 3).
      texts: one per cell; it is black or white, whichever can be read on the cell.
      fontsize: in points, smaller where a text would not fit its cell.
      lines: between the cells.
    """
    rows, columns = cells.shape
    image = axes.imshow(
        colors,
        extent=(cells.left, cells.right, cells.bottom, cells.top),
        interpolation="nearest",
        aspect="auto",
        zorder=1,
    )
    image.set_gid(name)
    if lines:
        style: dict[str, Any] = {"colors": "0.6", "linewidths": 0.6, "zorder": 2}
        down = [cells.left + j * cells.side for j in range(columns + 1)]
        across = [cells.top + i * cells.side for i in range(rows + 1)]
        axes.vlines(down, cells.top, cells.bottom, **style)
        axes.hlines(across, cells.left, cells.right, **style)
    words = [text for row in texts or () for text in row]
    fontsize = min(
        fontsize, *(72 * 0.9 * cells.side / text_width(text) for text in words), FONT * 2
    )
    for i, row in enumerate(texts or ()):
        for j, text in enumerate(row):
            ink = readable_on(colors[i, j])
            write(axes, *cells.centre(i, j), text, gid=name, fontsize=fontsize, color=ink)


def outline(
    axes: "Axes", cells: Cells, place: tuple[int, int, int, int], color: str, **style: Any
) -> None:
    """Draws a frame around (row, column, rows, columns) of a table."""
    from matplotlib.patches import Rectangle

    row, column, rows, columns = place
    style = {"linewidth": 2.2, "zorder": 4, "fill": False, **style}
    x, y = cells.left + column * cells.side, cells.top + row * cells.side
    width, height = columns * cells.side, rows * cells.side
    axes.add_patch(Rectangle((x, y), width, height, edgecolor=color, **style))


def write(axes: "Axes", x: float, y: float, text: str, **style: Any) -> None:
    """Writes a text with its middle at (x, y), above everything else."""
    style = {"ha": "center", "va": "center", "fontsize": FONT, "color": INK, "zorder": 5, **style}
    axes.text(x, y, text, **style)


def arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    """Draws an arrow between two points of a canvas."""
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=3)


def inked(pixels: npt.ArrayLike) -> Array:
    """Returns the colours of pixels as ink: 0 white, 255 black, in between the greys."""
    shade = 1 - np.clip(np.asarray(pixels, np.float64) / 255, 0, 1)
    return np.repeat(shade[..., None], 3, axis=-1)


def signed(values: npt.ArrayLike, limit: float) -> Array:
    """Returns colours from blue, −limit, over white, 0, to red, +limit: RGBA."""
    from matplotlib import colormaps

    share = np.asarray(values, np.float64) / (2 * (limit or 1.0)) + 0.5
    return np.asarray(colormaps["RdBu_r"](np.clip(share, 0, 1)))


def readable_on(color: Array) -> str:
    """Returns the colour of text for a background, RGB or RGBA from 0 to 1."""
    red, green, blue = color[:3]
    # Relative luminance of the sRGB primaries, without their gamma: good enough for two inks.
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def number(value: Any) -> str:
    """Returns a number as it stands in a cell: three digits of a fraction, a true minus."""
    value = float(value)
    text = f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.3g}"
    return ("0" if text == "-0" else text).replace("-", "−")


def bracketed(value: float) -> str:
    """Returns a number as `number` writes it, in brackets where a minus would follow a sign."""
    text = number(value)
    return f"({text})" if text.startswith("−") else text


def text_width(text: str) -> float:
    """Returns about how wide a text is, its longest line, in units of the size of its letters."""
    return 0.65 * max(map(len, text.split("\n")), default=0) or 0.65


def numbers(values: npt.ArrayLike) -> list[list[str]]:
    """Returns a text per cell of (rows, columns)."""
    return [[number(value) for value in row] for row in np.asarray(values)]


def two_axes(name: str, values: npt.ArrayLike) -> Array:
    """Returns an array with rows and columns; whole numbers in 64 bits, so that products fit.

    Raises:
      ValueError: for another number of axes, an empty axis, or what is not finite.
    """
    array = np.asarray(values)
    if array.ndim != 2 or not array.size or not np.issubdtype(array.dtype, np.number):
        raise ValueError(
            f"{name} must be numbers with two axes (rows, columns), none of them empty, got "
            f"{array.dtype} of shape {array.shape}. Take one channel, for example {name}[:, :, 0]."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers, got NaN or infinity: draw another.")
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
