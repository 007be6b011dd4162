"""Drawing of the pixels of an image as a table of numbers on their shades."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jaxtyping import Num

from convjax.plots.chapter.grids import (
    FONT,
    PALE,
    Cells,
    canvas,
    draw_cells,
    inked,
    numbers,
    outline,
    two_axes,
    write,
)
from convjax.plots.figure import ORANGE

if TYPE_CHECKING:
    import matplotlib.figure

SIDE = 0.36  # inches, a cell: three digits in nine points and a margin
IMAGE = 2.6  # inches, the larger side of the whole image


def pixel_table(
    image: npt.ArrayLike,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
) -> "matplotlib.figure.Figure":
    """Draws an image, and a part of it as a table with the numbers on their shades.

    All cells have one scale of shades: 0 is white and 255 black.

    Args:
      image: one channel (H, W), 0..255.
      rows: (start, stop) of the part; the default is all rows.
      columns: (start, stop) of the part; the default is all columns.

    Raises:
      ValueError: if image has another number of axes or pixels out of range, or the part is empty
        or outside the image.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> figure = drawings.pixel_table(np.arange(12).reshape(3, 4), rows=(0, 2), columns=(1, 3))
      >>> [t.get_text() for t in figure.axes[0].texts if t.get_gid() == "table"]
      ['1', '2', '5', '6']
    """
    pixels = pixels_of("image", image)
    (top, bottom), (left, right) = (
        _part(name, part, size)
        for name, part, size in zip(("rows", "columns"), (rows, columns), pixels.shape, strict=True)
    )
    table = pixels[top:bottom, left:right]
    whole = Cells(0.2, 0.75, IMAGE / max(pixels.shape), pixels.shape)
    cells = Cells(whole.right + 0.85, 0.75, SIDE, table.shape)
    # The smaller of the two is centred beside the other.
    shift = (cells.bottom - whole.bottom) / 2
    whole = whole._replace(top=whole.top + max(shift, 0))
    cells = cells._replace(top=cells.top + max(-shift, 0))
    figure, axes = canvas(cells.right + 0.25, max(cells.bottom, whole.bottom) + 0.25)
    draw_cells(axes, "image", inked(pixels), whole, lines=False)
    outline(axes, whole, (0, 0, *pixels.shape), "0.6", linewidth=0.6)
    outline(axes, whole, (top, left, *table.shape), ORANGE)
    height, width = pixels.shape
    write(axes, whole.middle[0], whole.top - 0.25, f"{height}×{width} pixels")
    draw_cells(axes, "table", inked(table), cells, texts=numbers(table), fontsize=FONT - 1)
    outline(axes, cells, (0, 0, *table.shape), ORANGE)
    write(axes, cells.middle[0], cells.top - 0.5, "column", color=PALE, fontsize=FONT - 1)
    write(
        axes, cells.left - 0.55, cells.middle[1], "row", color=PALE, fontsize=FONT - 1, rotation=90
    )
    for j in range(table.shape[1]):
        x, _ = cells.centre(0, j)
        write(axes, x, cells.top - 0.2, str(left + j), gid="column", color=PALE, fontsize=FONT - 1)
    for i in range(table.shape[0]):
        _, y = cells.centre(i, 0)
        write(axes, cells.left - 0.22, y, str(top + i), gid="row", color=PALE, fontsize=FONT - 1)
    return figure


def pixels_of(name: str, image: npt.ArrayLike) -> Num[np.ndarray, "H W"]:
    """Returns one channel of pixels.

    Args:
      name: the argument's name, for messages.
      image: one channel.

    Raises:
      ValueError: if there is another number of axes, or a number outside 0..255.
    """
    pixels = two_axes(name, image)
    if pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(
            f"{name} must hold pixels from 0 to 255, got {pixels.min():g} to {pixels.max():g}. "
            "Pass the image before normalisation."
        )
    return pixels


def _part(name: str, part: tuple[int, int] | None, size: int) -> tuple[int, int]:
    first, last = (0, size) if part is None else part
    if not 0 <= first < last <= size:
        raise ValueError(
            f"{name} must be (start, stop) within 0..{size} and not empty, got {part}. Leave it "
            "out for the whole image."
        )
    return first, last
