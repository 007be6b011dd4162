"""The input cells and weights of one output cell, as a spreadsheet traces precedents.

Rows and columns count from 0 at the upper left, as in an array. Channels are left out: every input
channel in the group of the cell contributes the same cells and taps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from convjax._checks import describe_value
from convjax.ops import geometry
from convjax.ops.geometry import Padding, Pair


class Windows(NamedTuple):
    """The sliding windows of a convolution or pooling.

    Attributes:
      kernel_size, stride, dilation: in pixels, an int or a pair (height, width).
      padding: any form that `convjax.conv2d` accepts.

    Examples:
      >>> import convjax
      >>> convjax.Windows(3, stride=2, padding=1)
      Windows(kernel_size=3, stride=2, padding=1, dilation=1)
    """

    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: Any = 0
    dilation: int | Pair = 1


class ResolvedWindows(NamedTuple):
    """The settings of windows in full; pairs are (height, width)."""

    kernel_size: Pair
    stride: Pair
    padding: Padding
    dilation: Pair


class Precedent(NamedTuple):
    """One product of the sum: an input cell and the tap of the kernel that multiplies it."""

    cell: Pair
    tap: Pair


def output_shape(size: Pair, windows: Windows) -> Pair:
    """Returns (height, width) of the output of windows on an input of `size`.

    Raises:
      TypeError, ValueError: if `convjax.conv2d` would reject the settings.
    """
    settings = resolve_windows(windows, size)
    return geometry.output_shape(geometry.pair("size", size, minimum=1), **settings._asdict())


def precedents(cell: Pair, size: Pair, windows: Windows) -> list[Precedent]:
    """Returns the input cells and taps whose products add up to one output cell.

    Args:
      cell: (row, column) of the output; negative numbers count from the end.
      size: (height, width) of the input.
      windows: of the convolution or pooling.

    Returns:
      The products in the order of the kernel, row by row. Taps on the padding are left out, because
      their products are 0.

    Raises:
      IndexError: if the output has no such cell.
      TypeError, ValueError: if `convjax.conv2d` would reject the settings.

    Examples:
      >>> import convjax
      >>> windows = convjax.Windows(3, stride=2, padding=1)
      >>> products = convjax.precedents((0, 1), (5, 5), windows)
      >>> len(products), products[0]
      (6, Precedent(cell=(0, 1), tap=(1, 0)))
    """
    axes = _axes(size, windows)
    cell = checked_cell(cell, (axes[0].outputs, axes[1].outputs))
    rows, columns = (axis.inputs(of) for axis, of in zip(axes, cell, strict=True))
    return [
        Precedent((row, column), (i, j)) for i, row in rows.items() for j, column in columns.items()
    ]


def trace_precedents(
    cell: Pair, size: Pair, layers: Sequence[Windows]
) -> list[Bool[np.ndarray, "H W"]]:
    """Returns the cells that contribute to one output cell, through all layers to the image.

    Args:
      cell: (row, column) of the last layer's output; negative numbers count from the end.
      size: (height, width) of the image.
      layers: from the image to the output.

    Returns:
      A mask of the input of each layer, in the order of `layers`; the first is that of the image.

    Raises:
      IndexError, TypeError, ValueError: as `precedents`.

    Examples:
      >>> import convjax
      >>> layers = [convjax.Windows(3, stride=2, padding=1)] * 2
      >>> [int(mask.sum()) for mask in convjax.trace_precedents((3, 3), (28, 28), layers)]
      [49, 9]
    """
    sizes = [geometry.pair("size", size, minimum=1)]
    for windows in layers:
        sizes.append(output_shape(sizes[-1], windows))
    cell = checked_cell(cell, sizes[-1])
    masks: list[Bool[np.ndarray, "H W"]] = []
    wanted = np.zeros(sizes[-1], bool)
    wanted[cell] = True
    for of, windows in zip(reversed(sizes[:-1]), reversed(layers), strict=True):
        mask = np.zeros(of, bool)
        # Rows and columns are independent.
        rows, columns = _axes(of, windows)
        for i, j in np.argwhere(wanted).tolist():
            mask[np.ix_(list(rows.inputs(i).values()), list(columns.inputs(j).values()))] = True
        masks.insert(0, mask)
        wanted = mask
    return masks


def resolve_windows(windows: Windows, size: Pair) -> ResolvedWindows:
    """Returns the settings as pairs, the padding as ((top, bottom), (left, right)).

    Args:
      size: (height, width) of the input; the padding "same" depends on it.

    Raises:
      TypeError, ValueError: if `convjax.conv2d` would reject the settings.
    """
    if not isinstance(windows, Windows):
        raise TypeError(
            f"windows must be convjax.Windows, got {describe_value(windows)}. "
            "convjax.Windows(kernel_size) makes one."
        )
    size = geometry.pair("size", size, minimum=1)
    kernel_size = geometry.pair("kernel_size", windows.kernel_size, minimum=1)
    stride = geometry.pair("stride", windows.stride, minimum=1)
    dilation = geometry.pair("dilation", windows.dilation, minimum=1)
    padding = geometry.resolve_padding(
        windows.padding, size=size, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    return ResolvedWindows(kernel_size, stride, padding, dilation)


def checked_cell(cell: Pair, shape: Pair) -> Pair:
    """Returns a cell with its row and column counted from the start.

    Args:
      cell: (row, column); negative numbers count from the end.
      shape: (height, width) of the map.

    Raises:
      IndexError: if the map has no such cell.
      TypeError: if it is not a pair of ints.
    """
    row, column = geometry.pair("cell", cell, minimum=-(1 << 62))
    if not (-shape[0] <= row < shape[0] and -shape[1] <= column < shape[1]):
        raise IndexError(
            f"cell must be in the map of {shape[0]}×{shape[1]}, got {tuple(cell)}. Rows and "
            "columns count from 0."
        )
    return row % shape[0], column % shape[1]


class _Axis(NamedTuple):
    """One axis of a layer, in pixels."""

    size: int
    kernel_size: int
    stride: int
    before: int  # padding
    dilation: int
    outputs: int

    def inputs(self, index: int) -> dict[int, int]:
        """Returns the input index at each tap of one output index, without taps on the padding."""
        first = index * self.stride - self.before
        places = {tap: first + tap * self.dilation for tap in range(self.kernel_size)}
        return {tap: place for tap, place in places.items() if 0 <= place < self.size}


def _axes(size: Pair, windows: Windows) -> tuple[_Axis, _Axis]:
    kernel_size, stride, padding, dilation = settings = resolve_windows(windows, size)
    size = geometry.pair("size", size, minimum=1)
    outputs = geometry.output_shape(size, **settings._asdict())
    rows, columns = (
        _Axis(size[i], kernel_size[i], stride[i], padding[i][0], dilation[i], outputs[i])
        for i in range(2)
    )
    return rows, columns
