"""Drawings of a convolution as equations: letters for pixels, weights and outputs, and values."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, Num

from convjax.ops import geometry, reference
from convjax.plots.chapter.grids import (
    FONT,
    PALE,
    Cells,
    arrow,
    bracketed,
    canvas,
    draw_cells,
    number,
    outline,
    text_width,
    two_axes,
    write,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# I is left out because it looks like a 1.
PIXELS, WEIGHTS, OUTPUTS = "ABCDEFGHJKLM", "αβγδεζ", "PQRSTUVWX"
# One colour per weight: those of Okabe and Ito, lightened so that black letters stay readable.
TINTS = ("#8FC7EA", "#F2A071", "#7FD1B5", "#E3B5D0", "#F5EC8E", "#B9B9E8")
ZERO, PLAIN = (0.87, 0.87, 0.87), (1.0, 1.0, 1.0)


class Equations(NamedTuple):
    """A convolution with stride 1 and no padding, written out.

    Attributes:
      image: the pixels.
      kernel: the weights.
      bias: added to every output.
      indices: which weight is at each place of the matrix, −1 for zero.
      outputs: the results.
      shape: (rows, columns) of the outputs.
    """

    image: Num[np.ndarray, "H W"]
    kernel: Num[np.ndarray, "kh kw"]
    bias: int | float
    indices: Int[np.ndarray, "outputs pixels"]
    outputs: Num[np.ndarray, " outputs"]
    shape: tuple[int, int]

    def terms(self, output: int) -> list[tuple[int, int]]:
        """Returns the products of one output as pairs (weight, pixel)."""
        row = self.indices[output]
        return sorted((int(row[pixel]), int(pixel)) for pixel in np.flatnonzero(row >= 0))


def equations(image: npt.ArrayLike, kernel: npt.ArrayLike, bias: int | float) -> Equations:
    """Writes out the convolution of a small image, with stride 1 and no padding.

    Args:
      image: (H, W), at most 12 pixels.
      kernel: (kh, kw), at most 6 weights.
      bias: added to every output.

    Raises:
      ValueError: if a shape is another, or there are more pixels, weights or outputs than letters.

    Examples:
      >>> import numpy as np
      >>> from convjax.plots.chapter.equations import equations
      >>> equations(np.eye(3), np.ones((2, 2)), 1.0).outputs.tolist()
      [3.0, 2.0, 2.0, 3.0]
    """
    pixels, weights = two_axes("image", image), two_axes("kernel", kernel)
    rows, columns = (geometry.output_size(pixels.shape[i], weights.shape[i]) for i in range(2))
    for name, size, letters in (
        ("image", pixels.size, PIXELS),
        ("kernel", weights.size, WEIGHTS),
        ("the output", rows * columns, OUTPUTS),
    ):
        if size > len(letters):
            raise ValueError(
                f"{name} must have at most {len(letters)} numbers, one per letter, got {size}. "
                "Pass a smaller image, such as 3×3, with a 2×2 kernel."
            )
    indices = reference.tied_indices((1, 1, *weights.shape), (1, *pixels.shape))
    matrix = reference.conv_matrix(weights[None, None], (1, *pixels.shape))
    outputs = matrix @ pixels.ravel() + bias
    return Equations(pixels, weights, bias, indices, outputs, (rows, columns))


def letters(texts: str, values: Num[np.ndarray, "rows columns"]) -> list[list[str]]:
    """Returns a letter with its value below it for each cell."""
    flat = [f"{letter}\n{number(v)}" for letter, v in zip(texts, values.ravel(), strict=False)]
    columns = values.shape[1]
    return [flat[i : i + columns] for i in range(0, len(flat), columns)]


def tints(indices: Int[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes 3"]:
    """Returns the RGB colour of each weight's index, grey for −1."""
    from matplotlib.colors import to_rgb

    colors = np.array([*map(to_rgb, TINTS), ZERO])
    return np.asarray(colors[np.asarray(indices)])


def equation_places(
    image: npt.ArrayLike, kernel: npt.ArrayLike, bias: int | float
) -> "matplotlib.figure.Figure":
    """Draws image, kernel and outputs with letters, and the kernel at every place.

    Args:
      image: (H, W), at most 12 pixels.
      kernel: (kh, kw), at most 6 weights.
      bias: added to every output.

    Raises:
      ValueError: as `equations`.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> figure = drawings.equation_places(np.eye(3), np.ones((2, 2)), 1.0)
      >>> [t.get_text() for t in figure.axes[0].texts if t.get_gid() == "bias"]
      ['b\\n1']
    """
    found = equations(image, kernel, bias)
    side, count = 0.52, len(found.outputs)
    size, taps = found.image.shape, found.kernel.shape
    first = Cells(0.3, 0.65, side, size)
    middle = first.middle[1]
    weights = Cells(first.right + 0.75, middle - taps[0] * side / 2, side, taps)
    added = Cells(weights.right + 0.6, middle - side / 2, side, (1, 1))
    outputs = Cells(added.right + 0.9, middle - found.shape[0] * side / 2, side, found.shape)
    small = 0.34
    step = size[1] * small + 0.5
    under = first.bottom + 0.75
    width = max(outputs.right + 0.3, count * step + 0.3)
    figure, axes = canvas(width, under + size[0] * small + 0.25)
    plain = np.ones((*size, 3))
    draw_cells(axes, "image", plain, first, texts=letters(PIXELS, found.image))
    order = np.arange(found.kernel.size).reshape(taps)
    draw_cells(axes, "kernel", tints(order), weights, texts=letters(WEIGHTS, found.kernel))
    of_outputs = found.outputs.reshape(found.shape)
    draw_cells(
        axes, "outputs", np.ones((*found.shape, 3)), outputs, texts=letters(OUTPUTS, of_outputs)
    )
    one = [[f"b\n{number(bias)}"]]
    draw_cells(axes, "bias", np.ones((1, 1, 3)), added, texts=one)
    heads = (("image", first), ("kernel", weights), ("bias", added), ("outputs", outputs))
    for head, at in heads:
        write(axes, at.middle[0], at.top - 0.22, head, color=PALE)
    write(axes, (first.right + weights.left) / 2, middle, "∗", fontsize=FONT + 6)
    write(axes, (weights.right + added.left) / 2, middle, "+", fontsize=FONT + 4)
    arrow(axes, (added.right + 0.2, middle), (outputs.left - 0.2, middle), "0.3")
    for i in range(count):
        left = (width - count * step) / 2 + i * step + 0.25
        _place(axes, found, i, Cells(left, under, small, size))
    return figure


def _place(axes: "matplotlib.axes.Axes", found: Equations, i: int, cells: Cells) -> None:
    """Draws the image with the kernel at the place of one output."""
    row = found.indices[i].reshape(found.image.shape)
    colors = np.where((row >= 0)[..., None], tints(row), PLAIN)
    texts = [
        [
            (WEIGHTS[row[y, x]] if row[y, x] >= 0 else "") + PIXELS[y * row.shape[1] + x]
            for x in range(row.shape[1])
        ]
        for y in range(row.shape[0])
    ]
    draw_cells(axes, f"place {i}", colors, cells, texts=texts, fontsize=FONT - 1)
    y, x = (int(v[0]) for v in np.nonzero(row >= 0))
    outline(axes, cells, (y, x, *found.kernel.shape), "0.15", linewidth=1.6)
    write(axes, cells.middle[0], cells.top - 0.2, OUTPUTS[i], fontweight="bold")


def equation_list(
    image: npt.ArrayLike, kernel: npt.ArrayLike, bias: int | float
) -> "matplotlib.figure.Figure":
    """Draws one equation per output, with the numbers, each product in the colour of its weight.

    Args:
      image: (H, W), at most 12 pixels.
      kernel: (kh, kw), at most 6 weights.
      bias: added to every output.

    Raises:
      ValueError: as `equations`.
    """
    found = equations(image, kernel, bias)
    factors = [
        [(found.kernel.ravel()[w], found.image.ravel()[p]) for w, p in found.terms(i)]
        for i in range(len(found.outputs))
    ]
    products = [["·".join(map(bracketed, pair)) for pair in row] for row in factors]
    longest = max(text_width(text) for row in products for text in row) * FONT / 72
    # Inches from one term to the next, with a plus between, and from one equation to the next.
    across, pitch = max(longest + 0.3, 0.85), 0.85
    figure, axes = canvas(1.55 + (found.kernel.size + 0.5) * across, 0.2 + len(products) * pitch)
    for i, value in enumerate(found.outputs):
        y = 0.4 + i * pitch
        write(axes, 0.35, y, OUTPUTS[i], fontweight="bold", fontsize=FONT + 2)
        write(axes, 0.35, y + 0.32, number(value), gid="output", color=PALE)
        x = 0.78 + across / 2
        for k, (weight, pixel) in enumerate(found.terms(i)):
            box = {"boxstyle": "round,pad=0.25", "facecolor": TINTS[weight], "edgecolor": "none"}
            term = f"{WEIGHTS[weight]}·{PIXELS[pixel]}"
            write(axes, x, y, term, gid=f"term {i}", fontsize=FONT + 2, bbox=box)
            write(axes, x, y + 0.32, products[i][k], gid=f"product {i}", color=PALE)
            for at in (y, y + 0.32):
                write(axes, x - across / 2, at, "+" if k else "=", color=PALE)
            x += across
        for at in (y, y + 0.32):
            write(axes, x - across / 2, at, "+", color=PALE)
        write(axes, x, y, "b", fontsize=FONT + 2)
        write(axes, x, y + 0.32, bracketed(found.bias), gid="bias", color=PALE)
    return figure
