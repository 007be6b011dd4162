"""Drawing of the precedents of one cell: the cells and weights that it is computed from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Num

from convjax._checks import check_whole
from convjax.analysis._precedents import Windows, checked_cell, trace_precedents
from convjax.ops import reference
from convjax.ops.geometry import Pair
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
from convjax.plots.figure import BLUE, ORANGE

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

MAP = 2.3  # inches, the larger side of a map
SIDE = 0.4  # inches, a cell with a number
TOP = 0.6  # of the maps
GAP = 0.35  # inches, around a kernel
STRIDE = 2
MAX_SIDE = 14  # cells along a side of a table whose numbers can be read


class _Stage(NamedTuple):
    """The image or the output of a convolution, and the part that contributes to the cell."""

    name: str
    values: Num[np.ndarray, "rows columns"]
    part: tuple[int, int, int, int]  # row, column, rows, columns

    @property
    def numbers(self) -> Num[np.ndarray, "rows columns"]:
        row, column, rows, columns = self.part
        return self.values[row : row + rows, column : column + columns]


def precedents_of_cell(
    image: npt.ArrayLike,
    kernels: Sequence[npt.ArrayLike],
    cell: Pair,
    generations: int | None = None,
) -> "matplotlib.figure.Figure":
    """Draws one output cell of a chain of convolutions and what it is computed from.

    Every convolution is one of the chapter's `conv`, with stride 2, padding of half the kernel and
    a ReLU. The maps are above, with the contributing cells framed; below are the numbers of these
    cells, and the kernels.

    Args:
      image: one channel (H, W), 0..255; drawn as ink, 255 black.
      kernels: (kh, kw) of each convolution, from the image to the output.
      cell: (row, column) of the last output; negative numbers count from the end.
      generations: how many convolutions are traced back: 1 draws the immediate precedents, 2 also
        the precedents of these. The default is all, back to the image.

    Raises:
      IndexError: if the output has no such cell.
      TypeError: if cell is not a pair of ints, or generations is not an int.
      ValueError: if a shape is another, a kernel has a side of 1, there are more generations than
        kernels, or more than 14 cells on a side contribute.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> figure = drawings.precedents_of_cell(np.eye(9), [np.ones((3, 3))] * 2, (1, 1))
      >>> [text.get_text() for text in figure.axes[0].texts if text.get_gid() == "count"]
      ['7×7 cells', '3×3 cells', '1 cell']
    """
    pixels = pixels_of("image", image)
    if not len(kernels):
        raise ValueError(
            "kernels must hold at least one kernel, got none. Pass the kernel of each convolution."
        )
    weights = [two_axes(f"kernels[{i}]", kernel) for i, kernel in enumerate(kernels)]
    for i, kernel in enumerate(weights):
        if min(kernel.shape) < 2:
            raise ValueError(
                f"kernels[{i}] must have at least 2 rows and columns, got {kernel.shape[0]}×"
                f"{kernel.shape[1]}: with stride 2 a smaller kernel skips cells. Pass a larger one."
            )
    count = len(kernels) if generations is None else generations
    if check_whole("generations", count, 1) > len(kernels):
        raise ValueError(
            f"generations must be at most the number of kernels, {len(kernels)}, got {count}. Pass "
            "fewer generations or more kernels."
        )
    stages, total = _stages(pixels, weights, cell)
    return _figure(stages[-count - 1 :], weights[-count:], total, len(weights) - count)


def _stages(
    pixels: Num[np.ndarray, "H W"], weights: list[Num[np.ndarray, "kh kw"]], cell: Pair
) -> tuple[list[_Stage], float]:
    """Returns the image and all outputs, and the cell's sum before the ReLU."""
    maps, total, windows = [pixels], pixels, []
    for kernel in weights:
        padding = kernel.shape[0] // 2, kernel.shape[1] // 2
        windows.append(Windows(kernel.shape, STRIDE, padding))
        batch, filters = maps[-1][None, ..., None], kernel[..., None, None]
        total = reference.conv2d_loops(batch, filters, stride=STRIDE, padding=padding)[0, ..., 0]
        maps.append(np.maximum(total, 0))
    masks = trace_precedents(cell, pixels.shape, windows)
    row, column = checked_cell(cell, total.shape)
    parts = [_bounds(mask) for mask in masks] + [(row, column, 1, 1)]
    largest = max(max(part[2:]) for part in parts)
    if largest > MAX_SIDE:
        raise ValueError(
            f"kernels must lead back to at most {MAX_SIDE} cells on a side, got {largest}. Pass "
            "fewer or smaller kernels."
        )
    names = ["image", *(f"output of conv{i + 1}" for i in range(len(weights)))]
    stages = [_Stage(*of_stage) for of_stage in zip(names, maps, parts, strict=True)]
    return stages, float(total[row, column])


def _figure(
    stages: list[_Stage], weights: list[Num[np.ndarray, "kh kw"]], total: float, first: int
) -> "matplotlib.figure.Figure":
    tallest = max(stage.part[2] for stage in stages) * SIDE
    below = TOP + MAP + 0.8
    middle, x, above, tables, filters = below + tallest / 2, 0.4, [], [], []
    for stage, kernel in zip(stages, [*weights, None], strict=True):
        rows, columns = stage.part[2:]
        width = max(MAP, columns * SIDE)
        side = MAP / max(stage.values.shape)
        height, breadth = (cells * side for cells in stage.values.shape)
        left, top = x + (width - breadth) / 2, TOP + (MAP - height) / 2
        above.append(Cells(left, top, side, stage.values.shape))
        left = x + (width - columns * SIDE) / 2
        tables.append(Cells(left, middle - rows * SIDE / 2, SIDE, (rows, columns)))
        x += width + GAP
        if kernel is not None:
            top = middle - kernel.shape[0] * SIDE / 2
            filters.append(Cells(x, top, SIDE, kernel.shape))
            x += kernel.shape[1] * SIDE + GAP
    figure, axes = canvas(x, max(below + tallest + 0.45, tables[-1].bottom + 0.75))
    for i, (stage, cells, table) in enumerate(zip(stages, above, tables, strict=True)):
        last = i == len(stages) - 1
        color = ORANGE if last else BLUE
        _draw_stage(axes, stage, cells, table, color)
        if not last:
            ahead, part = above[i + 1], stages[i + 1].part
            start = (
                cells.left + (stage.part[1] + stage.part[3]) * cells.side,
                cells.top + (stage.part[0] + stage.part[2] / 2) * cells.side,
            )
            end = (
                ahead.left + part[1] * ahead.side,
                ahead.top + (part[0] + part[2] / 2) * ahead.side,
            )
            arrow(axes, start, end, color)
    for i, (kernel, cells) in enumerate(zip(weights, filters, strict=True)):
        name = f"kernel {first + i + 1}"
        colors = signed(kernel, 2 * float(np.abs(kernel).max()))
        draw_cells(axes, name, colors, cells, texts=numbers(kernel))
        outline(axes, cells, (0, 0, *cells.shape), BLUE)
        write(axes, cells.middle[0], cells.top - 0.22, name)
        write(axes, cells.left - GAP / 2, middle, "×", fontsize=FONT + 4)
        write(axes, cells.right + GAP / 2, middle, "→", fontsize=FONT + 4)
    text = f"sum {number(total)}" + (", after the ReLU 0" if total < 0 else "")
    write(axes, tables[-1].middle[0], tables[-1].bottom + 0.5, text, gid="sum")
    return figure


def _draw_stage(
    axes: "matplotlib.axes.Axes", stage: _Stage, cells: Cells, table: Cells, color: str
) -> None:
    """Draws a map with its part framed, and the numbers of the part below it."""
    image = stage.name == "image"
    limit = float(np.abs(stage.values).max())
    colors = inked(stage.values) if image else signed(stage.values, limit)
    draw_cells(axes, stage.name, colors, cells, lines=False)
    outline(axes, cells, (0, 0, *cells.shape), "0.6", linewidth=0.6)
    outline(axes, cells, stage.part, color, gid=f"part of {stage.name}")
    height, width = cells.shape
    write(axes, cells.middle[0], TOP - 0.3, f"{stage.name}, {height}×{width}", gid="head")
    shades = inked(stage.numbers) if image else signed(stage.numbers, 2 * limit)
    name = f"numbers of {stage.name}"
    draw_cells(axes, name, shades, table, texts=numbers(stage.numbers), fontsize=FONT - 1)
    outline(axes, table, (0, 0, *table.shape), color)
    rows, columns = table.shape
    text = "1 cell" if rows == columns == 1 else f"{rows}×{columns} cells"
    write(axes, table.middle[0], table.bottom + 0.22, text, gid="count", color=PALE)


def _bounds(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Returns the first row and column that a mask marks, and how many."""
    rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
    return rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
