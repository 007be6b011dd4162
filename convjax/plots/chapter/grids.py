"""Tables of coloured cells with numbers, on a canvas measured in inches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Num, Real

from convjax.plots.figure import new_figure

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

INK, PALE = "0.15", "0.45"  # of text, and of secondary text
FONT = 10.0  # points


class Cells(NamedTuple):
    """The place of a table on a canvas, in inches from the upper left.

    Attributes:
      left: left edge.
      top: upper edge.
      side: width and height of a cell.
      shape: (rows, columns).
    """

    left: float
    top: float
    side: float
    shape: tuple[int, int]

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.shape[1] * self.side

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.shape[0] * self.side

    @property
    def middle(self) -> tuple[float, float]:
        """The centre (x, y)."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def centre(self, row: int | float, column: int | float) -> tuple[float, float]:
        """Returns the centre (x, y) of a cell."""
        return self.left + (column + 0.5) * self.side, self.top + (row + 0.5) * self.side


def canvas(
    width: int | float, height: int | float
) -> "tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]":
    """Returns a figure and axes that cover it, in inches with y downwards."""
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # every place on a canvas is explicit
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def draw_cells(
    axes: "matplotlib.axes.Axes",
    name: str,
    colors: Float[np.ndarray, "rows columns channels"],
    cells: Cells,
    *,
    texts: Sequence[Sequence[str]] | None = None,
    fontsize: int | float = FONT,
    lines: bool = True,
) -> None:
    """Draws a table of cells.

    Args:
      axes: the canvas.
      name: the `gid` of the artists, by which readers of the figure find them.
      colors: RGBA or RGB from 0 to 1.
      cells: the place of the table.
      texts: one per cell; each is black or white, whichever is readable on its cell.
      fontsize: in points, reduced where a text would not fit into its cell.
      lines: whether there are lines between the cells.
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
    axes: "matplotlib.axes.Axes",
    cells: Cells,
    place: tuple[int, int, int, int],
    color: str,
    **style: Any,
) -> None:
    """Draws a frame around a part of a table, (row, column, rows, columns)."""
    from matplotlib.patches import Rectangle

    row, column, rows, columns = place
    style = {"linewidth": 2.2, "zorder": 4, "fill": False, **style}
    x, y = cells.left + column * cells.side, cells.top + row * cells.side
    width, height = columns * cells.side, rows * cells.side
    axes.add_patch(Rectangle((x, y), width, height, edgecolor=color, **style))


def write(
    axes: "matplotlib.axes.Axes", x: int | float, y: int | float, text: str, **style: Any
) -> None:
    """Writes a text centred at (x, y), in front of everything else."""
    style = {"ha": "center", "va": "center", "fontsize": FONT, "color": INK, "zorder": 5, **style}
    axes.text(x, y, text, **style)


def arrow(
    axes: "matplotlib.axes.Axes", start: tuple[float, float], end: tuple[float, float], color: str
) -> None:
    """Draws an arrow between two points of a canvas."""
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=3)


def inked(pixels: npt.ArrayLike) -> Float[np.ndarray, "*axes 3"]:
    """Returns the colours of pixels drawn as ink: 0 is white and 255 black."""
    shade = 1 - np.clip(np.asarray(pixels, np.float64) / 255, 0, 1)
    return np.repeat(shade[..., None], 3, axis=-1)


def signed(values: npt.ArrayLike, limit: int | float) -> Float[np.ndarray, "*axes 4"]:
    """Returns RGBA colours from blue at −limit over white at 0 to red at +limit."""
    from matplotlib import colormaps

    share = np.asarray(values, np.float64) / (2 * (limit or 1.0)) + 0.5
    return np.asarray(colormaps["RdBu_r"](np.clip(share, 0, 1)))


def readable_on(color: Real[np.ndarray, " channels"]) -> str:
    """Returns the colour of text on a background, RGB or RGBA from 0 to 1."""
    red, green, blue = color[:3]
    # Weights of the sRGB primaries without their gamma, which suffices to choose black or white.
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def number(value: Any) -> str:
    """Returns the text of a number in a cell: three digits of a fraction, a true minus sign.

    Examples:
      >>> from convjax.plots.chapter.grids import number
      >>> number(-29.0), number(0.12345)
      ('−29', '0.123')
    """
    value = float(value)
    text = f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.3g}"
    return ("0" if text == "-0" else text).replace("-", "−")


def bracketed(value: Any) -> str:
    """Returns a number as `number` writes it, a negative one in brackets."""
    text = number(value)
    return f"({text})" if text.startswith("−") else text


def text_width(text: str) -> float:
    """Returns the approximate width of the longest line, in units of the font size."""
    return 0.65 * max(map(len, text.split("\n")), default=0) or 0.65


def numbers(values: npt.ArrayLike) -> list[list[str]]:
    """Returns one text per cell of (rows, columns)."""
    return [[number(value) for value in row] for row in np.asarray(values)]


def two_axes(name: str, values: npt.ArrayLike) -> Num[np.ndarray, "rows columns"]:
    """Returns an array with rows and columns; integers get 64 bits, so that products fit.

    Args:
      name: the argument's name, for messages.
      values: numbers.

    Raises:
      ValueError: if there is another number of axes, an empty axis, or a number is not finite.
    """
    array = np.asarray(values)
    if array.ndim != 2 or not array.size or not np.issubdtype(array.dtype, np.number):
        raise ValueError(
            f"{name} must be numbers with two axes (rows, columns), none of them empty, got "
            f"{array.dtype} of shape {array.shape}. Pass one channel, for example {name}[:, :, 0]."
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} must hold finite numbers, got NaN or infinity. Replace them before drawing."
        )
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
