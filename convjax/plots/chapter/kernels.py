"""Drawings of a kernel on an image: at one place with its products, and on the whole grid."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convjax.ops import reference
from convjax.plots.chapter.grids import (
    FONT,
    PALE,
    Cells,
    arrow,
    canvas,
    draw_cells,
    inked,
    number,
    numbers,
    outline,
    signed,
    two_axes,
    write,
)
from convjax.plots.chapter.pixels import pixels_of
from convjax.plots.figure import BLUE, ORANGE, new_figure

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

IMAGE = 2.8  # inches, the larger side of the image
SIDE = 0.5  # inches, a cell with a number
MAX_SIDE = 5  # rows or columns of a kernel whose products can be read


def kernel_at_place(
    image: npt.ArrayLike, row: int, column: int, kernel: npt.ArrayLike
) -> "matplotlib.figure.Figure":
    """Draws a kernel at one place: the pixels under it, the kernel, the products and their sum.

    Args:
      image: one channel (H, W), 0..255; drawn as ink, 255 black.
      row: row of the pixel under the kernel's centre.
      column: its column.
      kernel: (kh, kw), at most 5×5.

    Raises:
      ValueError: if a shape is another, or the kernel extends beyond the border.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> figure = drawings.kernel_at_place(np.eye(5), 2, 2, np.ones((3, 3)))
      >>> [text.get_text() for text in figure.axes[0].texts if text.get_gid() == "sum"]
      ['3']
    """
    pixels, weights = pixels_of("image", image), two_axes("kernel", kernel)
    if max(weights.shape) > MAX_SIDE:
        raise ValueError(
            f"kernel must be at most {MAX_SIDE}×{MAX_SIDE} to have readable products, got "
            f"{weights.shape[0]}×{weights.shape[1]}. Pass a smaller kernel."
        )
    total = reference.apply_kernel(pixels, row, column, weights)
    top, left = row - weights.shape[0] // 2, column - weights.shape[1] // 2
    height, width = weights.shape
    window = pixels[top : top + height, left : left + width]
    products = window * weights

    whole = Cells(0.25, 0.6, IMAGE / max(pixels.shape), pixels.shape)
    y = max(whole.middle[1] - height * SIDE / 2, 0.6)
    places = [Cells(whole.right + 0.75, y, SIDE, weights.shape)]
    for _ in range(2):
        places.append(places[-1]._replace(left=places[-1].right + 0.5))
    total_at = Cells(places[-1].right + 0.55, places[0].middle[1] - 0.3, 0.9, (1, 1))
    figure, axes = canvas(total_at.right + 0.25, max(whole.bottom, places[0].bottom + 0.35) + 0.25)
    draw_cells(axes, "image", inked(pixels), whole, lines=False)
    outline(axes, whole, (0, 0, *pixels.shape), "0.6", linewidth=0.6)
    outline(axes, whole, (top, left, height, width), ORANGE)
    write(axes, whole.middle[0], 0.3, f"centre at row {row}, column {column}")
    corner = whole.left + (left + width) * whole.side, whole.top + (top + height / 2) * whole.side
    arrow(axes, corner, (places[0].left - 0.06, places[0].middle[1]), ORANGE)

    heads = ("pixels", "kernel", "products")
    shades = (
        inked(window),
        # The colours stay in the inner half of the scale, where black numbers can be read.
        signed(weights, 2 * float(np.abs(weights).max())),
        signed(products, 2 * float(np.abs(products).max())),
    )
    for head, at, colors, values in zip(
        heads, places, shades, (window, weights, products), strict=True
    ):
        draw_cells(axes, head, colors, at, texts=numbers(values))
        write(axes, at.middle[0], y - 0.25, head)
    outline(axes, places[0], (0, 0, height, width), ORANGE)
    for sign, at in zip("×=", places, strict=False):
        write(axes, at.right + 0.25, at.middle[1], sign, fontsize=FONT + 4)
    write(axes, places[2].right + 0.28, places[2].middle[1], "→", fontsize=FONT + 4)
    x, middle = total_at.middle[0], places[0].middle[1]
    write(axes, x, y - 0.25, "their sum")
    write(axes, x, middle, number(total), gid="sum", fontsize=FONT + 9, fontweight="bold")
    # More than nine terms do not fit the width.
    terms = [number(value) for value in products.ravel() if value]
    text = " + ".join(f"({term})" if term.startswith("−") else term for term in terms) or "0"
    write(
        axes,
        places[2].middle[0],
        places[2].bottom + 0.3,
        f"{text} = {number(total)}" if len(terms) <= 9 else f"{len(terms)} products are not 0",
        gid="terms",
        color=PALE,
        fontsize=FONT - 1,
    )
    return figure


def kernel_on_grid(
    image: npt.ArrayLike, kernel: npt.ArrayLike, places: tuple[tuple[int, int], ...] = ()
) -> "matplotlib.figure.Figure":
    """Draws the centres at which a kernel fits into an image, and the map of the results.

    Both panels use the coordinates of the image, so that a place is at the same height in both.

    Args:
      image: one channel (H, W), 0..255; drawn as ink, 255 black.
      kernel: (kh, kw), not larger than the image.
      places: centres (row, column) that are marked in both panels, with the result as a number.

    Raises:
      ValueError: if a shape is another, or the kernel does not fit into the image or at a place.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> figure = drawings.kernel_on_grid(np.eye(6), np.ones((3, 3)), places=((2, 2),))
      >>> figure.axes[1].get_title()
      '4×4 results, each at its centre'
    """
    pixels, weights = pixels_of("image", image), two_axes("kernel", kernel)
    found = reference.kernel_map(pixels, weights)
    sums = [reference.apply_kernel(pixels, *place, weights) for place in places]
    first_row, first_column = weights.shape[0] // 2, weights.shape[1] // 2
    rows = first_row + np.arange(found.shape[0])
    columns = first_column + np.arange(found.shape[1])
    figure = new_figure(11, 5.2)
    left, right = figure.subplots(1, 2)
    left.imshow(pixels, cmap="Greys", vmin=0, vmax=255)
    across, down = np.meshgrid(columns, rows)
    left.plot(across.ravel(), down.ravel(), ".", color=BLUE, markersize=2.5, alpha=0.7)
    left.set_title(
        f"{found.shape[0]}×{found.shape[1]} centres on {pixels.shape[0]}×{pixels.shape[1]} pixels"
    )
    limit = float(np.abs(found).max()) or 1.0
    edges = (columns[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5, rows[0] - 0.5)
    picture = right.imshow(found, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=edges)
    right.set_title(f"{found.shape[0]}×{found.shape[1]} results, each at its centre")
    figure.colorbar(picture, ax=right, label="sum of the products", shrink=0.85)
    for axes in (left, right):
        axes.set(xlim=(-0.5, pixels.shape[1] - 0.5), ylim=(pixels.shape[0] - 0.5, -0.5))
        axes.set(xlabel="column", ylabel="row", facecolor="0.93")
    for place, total in zip(places, sums, strict=True):
        _mark(left, place, weights.shape)
        _mark(right, place, (1, 1))
        # Numbers point away from the border, which would cut them off.
        inwards = 1 if place[1] < pixels.shape[1] / 2 else -1
        upwards = 1 if place[0] > pixels.shape[0] / 8 else -1
        right.annotate(
            number(total),
            xy=(place[1], place[0]),
            xytext=(inwards * 14, upwards * 14),
            textcoords="offset points",
            ha="left" if inwards > 0 else "right",
            va="center",
            fontsize=FONT,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": ORANGE},
        )
    return figure


def _mark(axes: "matplotlib.axes.Axes", place: tuple[int, int], shape: tuple[int, ...]) -> None:
    from matplotlib.patches import Rectangle

    height, width = shape
    corner = place[1] - width // 2 - 0.5, place[0] - height // 2 - 0.5
    axes.add_patch(
        Rectangle(corner, width, height, fill=False, edgecolor=ORANGE, linewidth=2, zorder=4)
    )
