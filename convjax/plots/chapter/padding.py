"""Drawings of padding and stride: the kernel on the padded input, one frame per output cell."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from convjax.analysis._precedents import Windows, output_shape, precedents
from convjax.ops import geometry
from convjax.ops.geometry import Pair
from convjax.plots.chapter.grids import FONT, PALE, Cells, arrow, canvas, draw_cells, outline, write
from convjax.plots.figure import BLUE, ORANGE

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

SIDE = 0.26  # inches, a cell
# RGB of a pixel and of padding, and of both under the kernel.
PIXEL, PAD = (0.80, 0.86, 0.92), (1.0, 1.0, 1.0)
SEEN, SEEN_PAD = (0.96, 0.60, 0.35), (0.99, 0.88, 0.80)
MAX_SIDE = 14  # cells along a side of the padded input that remain distinguishable


def first_cells(shape: Pair) -> list[Pair]:
    """Returns the output cells that show how a kernel moves.

    These are the first, its neighbours to the right and below, and the last.
    """
    rows, columns = shape
    cells = [(0, 0), (0, min(1, columns - 1)), (min(1, rows - 1), 0), (rows - 1, columns - 1)]
    return list(dict.fromkeys(cells))


def windows_on_grid(
    size: Pair, windows: Windows, cells: Sequence[Pair] | None = None
) -> "matplotlib.figure.Figure":
    """Draws one frame per output cell: the kernel on the padded input, and the output below it.

    Args:
      size: (height, width) of the input.
      windows: kernel, stride, padding and dilation.
      cells: (row, column) in the output; negative numbers count from the end. The default is
        the first, its neighbours to the right and below, and the last.

    Raises:
      IndexError: if the output has no such cell.
      TypeError: if `convjax.conv2d` would not accept the type of a setting.
      ValueError: if `convjax.conv2d` would not accept a setting, or a side of the padded input has
        more than 14 cells.

    Examples:
      >>> from convjax import Windows, drawings
      >>> figure = drawings.windows_on_grid((5, 5), Windows(3, stride=2, padding=1))
      >>> figure.axes[0].texts[0].get_text()
      '3×3 kernel, padding 1, stride 2: 5×5 → 3×3,   (5 + 2·1 − 3) // 2 + 1 = 3'
    """
    shape = output_shape(size, windows)
    cells = first_cells(shape) if cells is None else list(cells)
    if not cells:
        raise ValueError(
            "cells must hold at least one output cell to draw, got none. Leave cells out for the "
            "default."
        )
    (top, bottom), (left, right) = _padding(size, windows)
    padded = top + size[0] + bottom, left + size[1] + right
    if max(padded) > MAX_SIDE:
        raise ValueError(
            f"size must be at most {MAX_SIDE}×{MAX_SIDE} with its padding, got {padded[0]}×"
            f"{padded[1]}. Pass a smaller input."
        )
    # A frame is at least as wide as the text above it.
    step = max(max(padded[1], shape[1]) * SIDE + 0.75, 1.9)
    width = max(len(cells) * step + 0.25, 7.0)
    indent = (width - len(cells) * step) / 2
    below = 1.1 + padded[0] * SIDE + 0.75
    figure, axes = canvas(width, below + shape[0] * SIDE + 0.3)
    write(axes, width / 2, 0.25, _arithmetic(size, windows), gid="title", fontsize=FONT + 1)
    for i, cell in enumerate(cells):
        middle = indent + (i + 0.5) * step
        above = Cells(middle - padded[1] * SIDE / 2, 1.1, SIDE, padded)
        under = Cells(middle - shape[1] * SIDE / 2, below, SIDE, shape)
        products = precedents(cell, size, windows)
        cell = cell[0] % shape[0], cell[1] % shape[1]
        _frame(axes, i, above, under, cell, _mask(size, windows, cell), (top, left, *size))
        count = np.prod(geometry.pair("kernel_size", windows.kernel_size, minimum=1))
        write(axes, middle, 0.65, f"output cell ({cell[0]}, {cell[1]})", gid="head")
        text = f"{len(products)} of {count} products on pixels"
        write(axes, middle, 0.88, text, gid="products", fontsize=FONT - 2, color=PALE)
    return figure


def _frame(
    axes: "matplotlib.axes.Axes",
    i: int,
    above: Cells,
    under: Cells,
    cell: Pair,
    seen: Bool[np.ndarray, "rows columns"],
    inner: tuple[int, int, int, int],
) -> None:
    """Draws the input with the cells under the kernel, and the output with the resulting cell."""
    top, left, height, width = inner
    real = np.zeros(above.shape, bool)
    real[top : top + height, left : left + width] = True
    colors = np.where(real[..., None], PIXEL, PAD)
    colors = np.where((seen & real)[..., None], SEEN, colors)
    colors = np.where((seen & ~real)[..., None], SEEN_PAD, colors)
    draw_cells(axes, f"input {i}", colors, above)
    # In every frame the border of the image is blue and that of the kernel orange.
    outline(axes, above, inner, BLUE, linewidth=1.6)
    rows, columns = np.flatnonzero(seen.any(1)).tolist(), np.flatnonzero(seen.any(0)).tolist()
    spans = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    outline(axes, above, (rows[0], columns[0], *spans), ORANGE, gid=f"kernel {i}")
    output = np.full((*under.shape, 3), 0.94)
    output[cell] = SEEN
    draw_cells(axes, f"output {i}", output, under)
    x, y = under.centre(*cell)
    start = above.centre(rows[0] + (spans[0] - 1) / 2, columns[0] + (spans[1] - 1) / 2)
    arrow(axes, (start[0], above.top + (rows[-1] + 1) * SIDE), (x, y - SIDE * 0.45), ORANGE)


def _mask(size: Pair, windows: Windows, cell: Pair) -> Bool[np.ndarray, "rows columns"]:
    """Returns which cells of the padded input lie under the kernel."""
    padding = _padding(size, windows)
    stride = geometry.pair("stride", windows.stride, minimum=1)
    kernel = geometry.pair("kernel_size", windows.kernel_size, minimum=1)
    dilation = geometry.pair("dilation", windows.dilation, minimum=1)
    mask = np.zeros([size[i] + sum(padding[i]) for i in range(2)], bool)
    places = [cell[i] * stride[i] + dilation[i] * np.arange(kernel[i]) for i in range(2)]
    mask[np.ix_(*places)] = True
    return mask


def _padding(size: Pair, windows: Windows) -> geometry.Padding:
    return geometry.resolve_padding(
        windows.padding,
        size=size,
        kernel_size=geometry.pair("kernel_size", windows.kernel_size, minimum=1),
        stride=geometry.pair("stride", windows.stride, minimum=1),
        dilation=geometry.pair("dilation", windows.dilation, minimum=1),
    )


def _arithmetic(size: Pair, windows: Windows) -> str:
    """Returns the settings and sizes and, if both axes are alike, the formula with its numbers."""
    kernel = geometry.pair("kernel_size", windows.kernel_size, minimum=1)
    stride = geometry.pair("stride", windows.stride, minimum=1)
    (top, bottom), (left, right) = _padding(size, windows)
    rows, columns = output_shape(size, windows)
    text = (
        f"{kernel[0]}×{kernel[1]} kernel, {_setting_text('padding', top, left)}, "
        f"{_setting_text('stride', *stride)}: {size[0]}×{size[1]} → {rows}×{columns}"
    )
    alike = size[0] == size[1] and kernel[0] == kernel[1] and stride[0] == stride[1]
    if not alike or len({top, bottom, left, right}) > 1 or windows.dilation not in (1, (1, 1)):
        return text
    return f"{text},   ({size[0]} + 2·{top} − {kernel[0]}) // {stride[0]} + 1 = {rows}"


def _setting_text(name: str, rows: int, columns: int) -> str:
    return f"{name} {rows}" if rows == columns else f"{name} ({rows}, {columns})"
