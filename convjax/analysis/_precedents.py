"""Which input cells and weights make one output cell, as a spreadsheet traces precedents.

Rows and columns count from 0 at the upper left, as in an array. What is said of one layer holds
for every channel alike: each input channel of the group of the cell has the same cells and taps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convjax.ops import geometry
from convjax.ops.geometry import Padding, Pair


class Windows(NamedTuple):
    """How the kernel of a convolution or a pooling lies on its input.

    Attributes:
      kernel_size, stride, dilation: pixels, an int or a pair (height, width).
      padding: any form that `convjax.conv2d` takes.
    """

    kernel_size: int | Pair
    stride: int | Pair = 1
    padding: Any = 0
    dilation: int | Pair = 1


class Resolved(NamedTuple):
    """The settings of windows with everything written out; pairs are (height, width)."""

    kernel_size: Pair
    stride: Pair
    padding: Padding
    dilation: Pair


class Precedent(NamedTuple):
    """One product of the sum: an input cell and the tap of the kernel that it meets."""

    cell: Pair
    tap: Pair


def output_shape(size: Pair, windows: Windows) -> Pair:
    """Returns (height, width) of the map that windows make of an input of `size`.

    Raises:
      TypeError, ValueError: for settings that `convjax.conv2d` would not take.
    """
    settings = resolved(windows, size)
    return geometry.output_shape(geometry.pair("size", size, minimum=1), **settings._asdict())


def precedents(cell: Pair, size: Pair, windows: Windows) -> list[Precedent]:
    """Returns the input cells and taps whose products add up to one output cell.

    Args:
      cell: (row, column) of the output; negative ones count from the end.
      size: (height, width) of the input.
      windows: how the kernel lies on it.

    Returns:
      The products in the order of the kernel, row by row. Taps on the padding, whose products are
      0, are left out.

    Raises:
      IndexError: if the output has no such cell.
      TypeError, ValueError: for settings that `convjax.conv2d` would not take.
    """
    axes = _axes(size, windows)
    cell = checked_cell(cell, (axes[0].outputs, axes[1].outputs))
    rows, columns = (axis.seen(of) for axis, of in zip(axes, cell, strict=True))
    return [
        Precedent((row, column), (i, j)) for i, row in rows.items() for j, column in columns.items()
    ]


def trace_precedents(
    cell: Pair, size: Pair, layers: Sequence[Windows]
) -> list[npt.NDArray[np.bool_]]:
    """Returns which cells make one output cell, through all layers back to the image.

    Args:
      cell: (row, column) of the last layer's output; negative ones count from the end.
      size: (height, width) of the image.
      layers: from the image to the output.

    Returns:
      A mask for the input of each layer, in the order of `layers`: the first is that of the image.

    Raises:
      IndexError, TypeError, ValueError: as `precedents`.
    """
    sizes = [geometry.pair("size", size, minimum=1)]
    for windows in layers:
        sizes.append(output_shape(sizes[-1], windows))
    cell = checked_cell(cell, sizes[-1])
    masks: list[npt.NDArray[np.bool_]] = []
    wanted = np.zeros(sizes[-1], bool)
    wanted[cell] = True
    for of, windows in zip(reversed(sizes[:-1]), reversed(layers), strict=True):
        mask = np.zeros(of, bool)
        # Which rows are seen does not depend on the column.
        rows, columns = _axes(of, windows)
        for i, j in np.argwhere(wanted):
            mask[np.ix_(list(rows.seen(i).values()), list(columns.seen(j).values()))] = True
        masks.insert(0, mask)
        wanted = mask
    return masks


def resolved(windows: Windows, size: Pair) -> Resolved:
    """Returns the settings as pairs, the padding as ((top, bottom), (left, right)).

    Args:
      size: (height, width) of the input, on which the padding "same" depends.

    Raises:
      TypeError, ValueError: for settings that `convjax.conv2d` would not take.
    """
    if not isinstance(windows, Windows):
        raise TypeError(
            f"windows must be Windows(kernel_size, …), got {type(windows).__name__}: {windows!r}."
        )
    size = geometry.pair("size", size, minimum=1)
    kernel_size = geometry.pair("kernel_size", windows.kernel_size, minimum=1)
    stride = geometry.pair("stride", windows.stride, minimum=1)
    dilation = geometry.pair("dilation", windows.dilation, minimum=1)
    padding = geometry.resolve_padding(
        windows.padding, size=size, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    return Resolved(kernel_size, stride, padding, dilation)


def checked_cell(cell: Pair, shape: Pair) -> Pair:
    """Returns a cell of a map with its row and column counted from the start.

    Args:
      cell: (row, column); negative ones count from the end.
      shape: (height, width) of the map.

    Raises:
      IndexError: if the map has no such cell.
      TypeError: if it is no pair of ints.
    """
    row, column = geometry.pair("cell", cell, minimum=-(1 << 62))
    if not (-shape[0] <= row < shape[0] and -shape[1] <= column < shape[1]):
        raise IndexError(
            f"cell must lie in the map of {shape[0]}×{shape[1]}, rows and columns from 0, got "
            f"{tuple(cell)}."
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

    def seen(self, index: int) -> dict[int, int]:
        """Returns the input index at each tap of one output index, without those on the padding."""
        first = index * self.stride - self.before
        places = {tap: first + tap * self.dilation for tap in range(self.kernel_size)}
        return {tap: place for tap, place in places.items() if 0 <= place < self.size}


def _axes(size: Pair, windows: Windows) -> tuple[_Axis, _Axis]:
    kernel_size, stride, padding, dilation = settings = resolved(windows, size)
    size = geometry.pair("size", size, minimum=1)
    outputs = geometry.output_shape(size, **settings._asdict())
    rows, columns = (
        _Axis(size[i], kernel_size[i], stride[i], padding[i][0], dilation[i], outputs[i])
        for i in range(2)
    )
    return rows, columns
