"""Drawings of a convolution as a matrix, and as the links of a network."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convjax.plots.chapter.equations import (
    OUTPUTS,
    PIXELS,
    TINTS,
    WEIGHTS,
    Equations,
    equations,
    letters,
    tints,
)
from convjax.plots.chapter.grids import (
    FONT,
    PALE,
    Cells,
    canvas,
    draw_cells,
    number,
    text_width,
    write,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

SIDE = 0.46  # inches, a cell


def equation_matrix(
    image: npt.ArrayLike, kernel: npt.ArrayLike, bias: int | float
) -> "matplotlib.figure.Figure":
    """Draws the convolution as matrix times vector plus bias.

    Entries that are always zero are grey. Tied entries, which hold the same weight, have the same
    colour.

    Args:
      image: (H, W), at most 12 pixels.
      kernel: (kh, kw), at most 6 weights.
      bias: added to every output.

    Raises:
      ValueError: as `convjax.plots.chapter.equations.equations`.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> figure = drawings.equation_matrix(np.eye(3), np.ones((2, 2)), 1.0)
      >>> figure.axes[0].texts[-1].get_text()
      'always 0, not trained: 20 entries'
    """
    found = equations(image, kernel, bias)
    rows, pixels = found.indices.shape
    tall = max(rows, pixels)

    def column(left: int | float, length: int) -> Cells:
        return Cells(left, 0.6 + (tall - length) * SIDE / 2, SIDE, (length, 1))

    matrix = Cells(0.6, 0.6 + (tall - rows) * SIDE / 2, SIDE, (rows, pixels))
    vector = column(matrix.right + 0.55, pixels)
    biases = column(vector.right + 0.55, rows)
    outputs = column(biases.right + 0.55, rows)
    zeros = int((found.indices < 0).sum())
    legend, width = _legend(found, f"always 0, not trained: {zeros} entries")
    figure, axes = canvas(max(outputs.right + 0.35, width), 0.6 + tall * SIDE + 0.8)
    texts = [["0" if k < 0 else WEIGHTS[k] for k in row] for row in found.indices]
    draw_cells(axes, "matrix", tints(found.indices), matrix, texts=texts, fontsize=FONT + 1)
    for i in range(rows):
        write(axes, matrix.left - 0.25, matrix.centre(i, 0)[1], OUTPUTS[i], color=PALE)
    for j in range(pixels):
        write(axes, matrix.centre(0, j)[0], matrix.top - 0.2, PIXELS[j], color=PALE)
    for name, cells, texts in (
        ("vector", vector, letters(PIXELS, found.image.reshape(-1, 1))),
        ("bias", biases, [[f"b\n{number(bias)}"]] * rows),
        ("outputs", outputs, letters(OUTPUTS, found.outputs[:, None])),
    ):
        draw_cells(axes, name, np.ones((*cells.shape, 3)), cells, texts=texts, fontsize=FONT - 1)
    for sign, left, right in (("×", matrix, vector), ("+", vector, biases), ("=", biases, outputs)):
        write(axes, (left.right + right.left) / 2, matrix.middle[1], sign, fontsize=FONT + 6)
    heads = (("matrix", matrix), ("pixels", vector), ("bias", biases), ("outputs", outputs))
    for head, cells in heads:
        # The letters of the columns are above the matrix.
        write(axes, cells.middle[0], cells.top - (0.5 if cells == matrix else 0.25), head)
    _write_legend(axes, legend, 0.6 + tall * SIDE + 0.45)
    return figure


def equation_links(
    image: npt.ArrayLike, kernel: npt.ArrayLike, bias: int | float
) -> "matplotlib.figure.Figure":
    """Draws the convolution as a network: one node per pixel and output, one link per product.

    Links with the same weight have the same colour. The further links of a fully connected layer
    are dotted.

    Args:
      image: (H, W), at most 12 pixels.
      kernel: (kh, kw), at most 6 weights.
      bias: added to every output.

    Raises:
      ValueError: as `convjax.plots.chapter.equations.equations`.
    """
    found = equations(image, kernel, bias)
    rows, pixels = found.indices.shape
    tall = max(rows, pixels)
    pitch, left, right = 0.56, 1.0, 5.2
    absent = int((found.indices < 0).sum())
    legend, width = _legend(found, f"no link: {absent} pairs")
    figure, axes = canvas(max(7.4, width), 0.6 + tall * pitch + 0.75)
    starts = [(left, 0.9 + (j + (tall - pixels) / 2) * pitch) for j in range(pixels)]
    # The outputs are spread over the height of the pixels.
    ends = [(right, 0.9 + ((i + 0.5) * tall / rows - 0.5) * pitch) for i in range(rows)]
    for i, j in np.ndindex(rows, pixels):
        weight = int(found.indices[i, j])
        (x, y), (to_x, to_y) = starts[j], ends[i]
        (line,) = axes.plot([x, to_x], [y, to_y], solid_capstyle="butt")
        if weight < 0:
            line.set(color="0.8", linewidth=0.7, linestyle=":", zorder=1, gid="no link")
        else:
            line.set(color=TINTS[weight], linewidth=3, zorder=2, gid=f"link {WEIGHTS[weight]}")
    values = found.image.ravel()
    for (x, y), letter, value in zip(starts, PIXELS, values, strict=False):
        _node(axes, x, y, letter)
        write(axes, x - 0.45, y, number(value), gid="pixel", color=PALE)
    for (x, y), letter, value in zip(ends, OUTPUTS, found.outputs, strict=False):
        _node(axes, x, y, letter)
        text = f"{number(value - bias)} + b = {number(value)}"
        write(axes, x + 0.3, y, text, gid="output", ha="left")
    write(axes, left, 0.35, "pixels")
    write(axes, right, 0.35, "outputs")
    _write_legend(axes, legend, 0.6 + tall * pitch + 0.45)
    return figure


def _node(axes: "matplotlib.axes.Axes", x: int | float, y: int | float, letter: str) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle((x, y), 0.2, facecolor="white", edgecolor="0.15", zorder=4))
    write(axes, x, y, letter, fontsize=FONT, gid="node")


def _legend(found: Equations, zero: str) -> tuple[list[tuple[float, str, str]], float]:
    """Returns the entries of the legend, (x, text, colour), and its width in inches."""
    weights = zip(WEIGHTS, found.kernel.ravel(), TINTS, strict=False)
    entries = [(f"{letter} = {number(value)}", tint) for letter, value, tint in weights]
    entries += [(f"b = {number(found.bias)}", "white"), (zero, "0.87")]
    x, placed = 0.5, []
    for text, color in entries:
        placed.append((x, text, color))
        x += text_width(text) * FONT / 72 + 0.35
    return placed, x


def _write_legend(
    axes: "matplotlib.axes.Axes", entries: list[tuple[float, str, str]], y: int | float
) -> None:
    """Writes the colour of each weight, and the meaning of grey."""
    for x, text, color in entries:
        edge = "0.6" if color == "white" else "none"
        box = {"boxstyle": "round,pad=0.25", "facecolor": color, "edgecolor": edge}
        write(axes, x, y, text, bbox=box, ha="left", gid="legend")
