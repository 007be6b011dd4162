"""The convolution written out in NumPy: loops over the output grid, patches, the explicit matrix.

Nothing here is fast. These are the definitions that the chapter gives in words, written so that
every number can be followed; `conv2d` is tested against them. All three agree:

  - `conv2d_loops` computes one output cell at a time;
  - `conv2d_patches` computes all cells at once, as patches times kernel matrix;
  - `conv_matrix` is one matrix for the whole operation. Most of its entries are always zero, and
    many of the others are tied: they are the same weight.

References:
  Howard and Gugger, "Deep Learning for Coders with fastai and PyTorch", chapter 13.
"""

from collections.abc import Iterator
from typing import Any, TypedDict, Unpack

import numpy as np
from jaxtyping import Float, Int, Num

from convjax.ops import geometry
from convjax.ops.geometry import Padding, Pair
from convjax.ops.layout import KERNEL_AXES, check_layout, permutation


class ConvSettings(TypedDict, total=False):
    """The settings of a convolution, with the meaning and the defaults of `convjax.conv2d`."""

    stride: int | Pair
    padding: int | Pair | Padding | str
    dilation: int | Pair
    groups: int


def apply_kernel(
    image: Num[np.ndarray, "H W"], row: int, column: int, kernel: Num[np.ndarray, "kh kw"]
) -> Any:
    """Multiplies a kernel by the pixels around one centre and returns the sum of the products.

    Args:
      image: one channel, shape (H, W).
      row: row of the pixel under the kernel's centre; for an even kernel, the first row after it.
      column: column of that pixel, likewise.
      kernel: weights, shape (kh, kw).

    Raises:
      ValueError: if the kernel extends beyond the border of the image.

    Examples:
      >>> import numpy as np
      >>> from convjax import reference
      >>> image = np.arange(20).reshape(4, 5)
      >>> top_edge = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
      >>> int(reference.apply_kernel(image, 1, 2, top_edge))  # 11 + 12 + 13 − (1 + 2 + 3)
      30
    """
    top, left = row - kernel.shape[0] // 2, column - kernel.shape[1] // 2
    bottom, right = top + kernel.shape[0], left + kernel.shape[1]
    if top < 0 or left < 0 or bottom > image.shape[0] or right > image.shape[1]:
        raise ValueError(
            f"row and column must keep the {kernel.shape[0]}×{kernel.shape[1]} kernel inside the "
            f"{image.shape[0]}×{image.shape[1]} image, got ({row}, {column})."
        )
    return (image[top:bottom, left:right] * kernel).sum()


def kernel_map(
    image: Num[np.ndarray, "H W"], kernel: Num[np.ndarray, "kh kw"]
) -> Num[np.ndarray, "Ho Wo"]:
    """Returns `apply_kernel` at every centre where the kernel fits: shape (H−kh+1, W−kw+1).

    Raises:
      ValueError: if the kernel is larger than the image.

    Examples:
      >>> import numpy as np
      >>> from convjax import reference
      >>> reference.kernel_map(np.arange(9).reshape(3, 3), np.array([[0, 1], [0, 0]])).tolist()
      [[1, 2], [4, 5]]
    """
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    height = geometry.output_size(image.shape[0], kernel.shape[0])
    width = geometry.output_size(image.shape[1], kernel.shape[1])
    return np.array(
        [
            [apply_kernel(image, rows + i, columns + j, kernel) for j in range(width)]
            for i in range(height)
        ]
    )


class _Grid:
    """The grid of output cells of one convolution, in the orders NCHW and OIHW.

    Attributes:
      padded: the input with its zeros around it.
      kernel: the weights.
      output_shape: sizes of the output, NCHW.
    """

    def __init__(
        self,
        x: Num[np.ndarray, "A B C D"],
        kernel: Num[np.ndarray, "E F G H"],
        *,
        stride: int | Pair = 1,
        padding: int | Pair | Padding | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        layout: str = "NHWC",
    ):
        self.x = x.transpose(permutation(check_layout(layout), "NCHW"))
        self.kernel = kernel.transpose(permutation(KERNEL_AXES[layout], "OIHW"))
        self.groups = groups
        self.stride = geometry.pair("stride", stride, minimum=1)
        self.dilation = geometry.pair("dilation", dilation, minimum=1)
        self.size = (self.x.shape[2], self.x.shape[3])
        self.kernel_size = (self.kernel.shape[2], self.kernel.shape[3])
        self.padding = geometry.resolve_padding(
            padding,
            size=self.size,
            kernel_size=self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
        )
        self.padded = np.pad(self.x, ((0, 0), (0, 0), *self.padding))
        self.output_size = geometry.output_shape(
            self.size,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        self.output_shape = (self.x.shape[0], self.kernel.shape[0], *self.output_size)

    def cells(self) -> Iterator[tuple[int, int, int, tuple[slice, ...]]]:
        """Yields (output channel, row, column, index) for each output cell.

        The index selects what the cell sees from the padded input: all examples, one group of
        channels, and the dilated window, shape (N, I, kh, kw).
        """
        inputs = self.kernel.shape[1]
        outputs = self.kernel.shape[0] // self.groups
        for channel in range(self.kernel.shape[0]):
            first = channel // outputs * inputs
            for i in range(self.output_size[0]):
                for j in range(self.output_size[1]):
                    windows = [
                        slice(
                            cell * self.stride[side],
                            cell * self.stride[side]
                            + geometry.dilated_size(self.kernel_size[side], self.dilation[side]),
                            self.dilation[side],
                        )
                        for side, cell in enumerate((i, j))
                    ]
                    yield channel, i, j, (slice(None), slice(first, first + inputs), *windows)

    def unpad(self, padded: Num[np.ndarray, "N C Hp Wp"]) -> Num[np.ndarray, "N C H W"]:
        """Removes the padding."""
        (top, _), (left, _) = self.padding
        return padded[:, :, top : top + self.size[0], left : left + self.size[1]]


def conv2d_loops(
    x: Num[np.ndarray, "A B C D"],
    kernel: Num[np.ndarray, "E F G H"],
    bias: Num[np.ndarray, " O"] | None = None,
    *,
    layout: str = "NHWC",
    **settings: Unpack[ConvSettings],
) -> Num[np.ndarray, "I J K L"]:
    """Convolves by visiting one output cell after the other.

    Args:
      x: images; axes as `layout` says.
      kernel: weights; axes as for `convjax.conv2d` in that layout.
      bias: one number per output channel, or None.
      layout: "NHWC", "NCHW" or "CHWN".
      **settings: stride, padding, dilation and groups, as for `convjax.conv2d`.

    Raises:
      TypeError: if a setting has another name or is not an integer.
      ValueError: if a setting is out of range, or the kernel is larger than the padded input.

    Examples:
      >>> import numpy as np
      >>> from convjax import reference
      >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
      >>> kernel = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
      >>> reference.conv2d_loops(x, kernel)[0, :, :, 0].tolist()
      [[27.0, 37.0], [57.0, 67.0]]
    """
    grid = _Grid(x, kernel, layout=layout, **settings)
    y = np.zeros(grid.output_shape, np.result_type(x, kernel))
    for channel, i, j, window in grid.cells():
        y[:, channel, i, j] = (grid.padded[window] * grid.kernel[channel]).sum(axis=(1, 2, 3))
        if bias is not None:
            y[:, channel, i, j] += bias[channel]
    return y.transpose(permutation("NCHW", layout))


def conv2d_patches(
    x: Num[np.ndarray, "A B C D"],
    kernel: Num[np.ndarray, "E F G H"],
    bias: Num[np.ndarray, " O"] | None = None,
    *,
    layout: str = "NHWC",
    **settings: Unpack[ConvSettings],
) -> Num[np.ndarray, "I J K L"]:
    """Convolves as patches (places × taps) times kernel matrix (taps × channels), per group.

    Arguments, result and exceptions are those of `conv2d_loops`.

    Examples:
      >>> import numpy as np
      >>> from convjax import reference
      >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
      >>> kernel = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
      >>> reference.conv2d_patches(x, kernel, np.array([0.5]), layout="NCHW")[0, 0].tolist()
      [[27.5, 37.5], [57.5, 67.5]]
    """
    grid = _Grid(x, kernel, layout=layout, **settings)
    outputs = grid.kernel.shape[0] // grid.groups
    rows: list[list[np.ndarray]] = [[] for _ in range(grid.groups)]
    for channel, _, _, window in grid.cells():
        if channel % outputs == 0:  # each group's windows once, not once per output channel
            rows[channel // outputs].append(grid.padded[window].reshape(len(grid.x), -1))
    maps = []
    for group, windows in enumerate(rows):
        matrix = grid.kernel[group * outputs : (group + 1) * outputs].reshape(outputs, -1).T
        product = np.stack(windows, axis=1) @ matrix  # (N, places, outputs)
        maps.append(product.transpose(0, 2, 1).reshape(-1, outputs, *grid.output_size))
    y = np.concatenate(maps, axis=1)
    if bias is not None:
        y = y + bias[:, None, None]
    return y.transpose(permutation("NCHW", layout))


def tied_indices(
    kernel_shape: tuple[int, int, int, int],
    image_shape: tuple[int, int, int],
    **settings: Unpack[ConvSettings],
) -> Int[np.ndarray, "outputs inputs"]:
    """Returns which weight stands at each entry of the convolution's matrix.

    Args:
      kernel_shape: (O, I, kh, kw).
      image_shape: (C, H, W) of one image.
      **settings: stride, padding, dilation and groups, as for `convjax.conv2d`.

    Returns:
      Integers, shape (O·Ho·Wo, C·H·W): the flat index of a weight in the kernel, the same for all
      entries that are tied, or −1 where the entry is always zero.

    Examples:
      >>> from convjax import reference
      >>> print(reference.tied_indices((1, 1, 2, 2), (1, 3, 3)))
      [[ 0  1 -1  2  3 -1 -1 -1 -1]
       [-1  0  1 -1  2  3 -1 -1 -1]
       [-1 -1 -1  0  1 -1  2  3 -1]
       [-1 -1 -1 -1  0  1 -1  2  3]]
    """
    kernel = np.arange(1, np.prod(kernel_shape) + 1).reshape(kernel_shape)
    x = np.zeros((1, *image_shape), np.int64)
    grid = _Grid(x, kernel, layout="NCHW", **settings)
    matrix = np.zeros((*grid.output_shape[1:], *image_shape), np.int64)
    for channel, i, j, window in grid.cells():
        seen = np.zeros_like(grid.padded)
        seen[window] = kernel[channel]
        matrix[channel, i, j] = grid.unpad(seen)[0]
    return matrix.reshape(int(np.prod(grid.output_shape[1:])), -1) - 1


def conv_matrix(
    kernel: Num[np.ndarray, "O I kh kw"],
    image_shape: tuple[int, int, int],
    **settings: Unpack[ConvSettings],
) -> Num[np.ndarray, "outputs inputs"]:
    """Returns the matrix M with y = M·x for one image, flattened in the order CHW.

    Args:
      kernel: weights, shape (O, I, kh, kw).
      image_shape: (C, H, W) of one image.
      **settings: stride, padding, dilation and groups, as for `convjax.conv2d`.

    Returns:
      The matrix, shape (O·Ho·Wo, C·H·W). For a 3×3 image and a 2×2 kernel it has four rows of
      nine columns, with four weights and five zeros in each row.

    Examples:
      >>> import numpy as np
      >>> from convjax import reference
      >>> matrix = reference.conv_matrix(np.ones((1, 1, 2, 2)), (1, 3, 3))
      >>> (matrix @ np.arange(9.0)).tolist()
      [8.0, 12.0, 20.0, 24.0]
    """
    indices = tied_indices(kernel.shape, image_shape, **settings)
    return np.where(indices < 0, 0, kernel.ravel()[indices])


def tied_gradient(
    matrix_gradient: Num[np.ndarray, "outputs inputs"],
    indices: Int[np.ndarray, "outputs inputs"],
    size: int,
) -> Float[np.ndarray, " weights"]:
    """Returns the gradient of each weight: the sum over the entries tied to it.

    Args:
      matrix_gradient: gradient of every entry of the matrix as if all were free.
      indices: as from `tied_indices`; entries of −1 contribute nothing.
      size: number of weights of the kernel.

    Examples:
      >>> import numpy as np
      >>> from convjax import reference
      >>> indices = reference.tied_indices((1, 1, 2, 2), (1, 3, 3))
      >>> reference.tied_gradient(np.ones((4, 9)), indices, 4).tolist()
      [4.0, 4.0, 4.0, 4.0]
    """
    used = indices >= 0
    return np.bincount(indices[used], weights=matrix_gradient[used], minlength=size)
