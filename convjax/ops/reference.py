"""The convolution by hand, in NumPy: loops over the grid, patches, and the explicit matrix.

Nothing here is fast. These are the definitions that the chapter gives in words, written out so
that every number can be followed; `conv2d` is tested against them. All three agree:

  - `conv2d_loops`: one kernel at one place of the grid at a time;
  - `conv2d_patches`: every place at once, as patches times kernel matrix;
  - `conv_matrix`: one matrix for the whole operation, most of whose entries are always zero and
    many of whose others are tied, that is, hold the same weight.

Reference: Howard and Gugger, "Deep Learning for Coders with fastai and PyTorch", chapter 13.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from convjax.ops import geometry
from convjax.ops.layout import KERNEL_AXES, check_layout, permutation

Array = npt.NDArray[Any]


def apply_kernel(image: Array, row: int, column: int, kernel: Array) -> Any:
    """Multiplies a kernel with the pixels around one centre and sums the products.

    Args:
      image: one channel, shape (H, W).
      row, column: the pixel under the kernel's centre (for an even kernel, the one after it).
      kernel: shape (kh, kw).

    Raises:
      ValueError: if the kernel reaches over the border of the image.
    """
    top, left = row - kernel.shape[0] // 2, column - kernel.shape[1] // 2
    bottom, right = top + kernel.shape[0], left + kernel.shape[1]
    if top < 0 or left < 0 or bottom > image.shape[0] or right > image.shape[1]:
        raise ValueError(
            f"row and column must keep the {kernel.shape[0]}×{kernel.shape[1]} kernel inside the "
            f"{image.shape[0]}×{image.shape[1]} image, got ({row}, {column})."
        )
    return (image[top:bottom, left:right] * kernel).sum()


def kernel_map(image: Array, kernel: Array) -> Array:
    """Applies `apply_kernel` at every centre where the kernel fits: shape (H−kh+1, W−kw+1)."""
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
    """One convolution's settings and, in the order NCHW and OIHW, its padded input."""

    def __init__(
        self,
        x: Array,
        kernel: Array,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        layout: str,
    ):
        self.layout = check_layout(layout)
        self.x = x.transpose(permutation(layout, "NCHW"))
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

    def cells(self) -> Any:
        """Yields (channel out, row, column, index), index being what one output cell sees.

        The index selects from the padded input all examples, one group of channels, and the
        dilated window: shape (N, I, kh, kw).
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

    def unpad(self, padded: Array) -> Array:
        (top, _), (left, _) = self.padding
        return padded[:, :, top : top + self.size[0], left : left + self.size[1]]


def conv2d_loops(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NHWC",
) -> Array:
    """Convolves by visiting every output cell; arguments and result as for `convjax.conv2d`."""
    grid = _Grid(x, kernel, stride, padding, dilation, groups, layout)
    y = np.zeros(grid.output_shape, np.result_type(x, kernel))
    for channel, i, j, window in grid.cells():
        y[:, channel, i, j] = (grid.padded[window] * grid.kernel[channel]).sum(axis=(1, 2, 3))
        if bias is not None:
            y[:, channel, i, j] += bias[channel]
    return y.transpose(permutation("NCHW", layout))


def conv2d_loops_vjp(
    x: Array,
    kernel: Array,
    cotangent: Array,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NHWC",
) -> tuple[Array, Array, Array]:
    """Returns the gradients of sum(y · cotangent) with respect to x, kernel and bias.

    Each output cell hands its cotangent back along the products that made it: to the pixels it
    saw, times the weights, and to the weights, times the pixels. That sum over cells is what
    tying the weights means.
    """
    grid = _Grid(x, kernel, stride, padding, dilation, groups, layout)
    g = cotangent.transpose(permutation(layout, "NCHW"))
    d_padded = np.zeros_like(grid.padded)
    d_kernel = np.zeros_like(grid.kernel)
    for channel, i, j, window in grid.cells():
        received = g[:, channel, i, j][:, None, None, None]
        d_padded[window] += received * grid.kernel[channel]
        d_kernel[channel] += (received * grid.padded[window]).sum(axis=0)
    dx = grid.unpad(d_padded).transpose(permutation("NCHW", layout))
    return dx, d_kernel.transpose(permutation("OIHW", KERNEL_AXES[layout])), g.sum(axis=(0, 2, 3))


def conv2d_patches(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NHWC",
) -> Array:
    """Convolves as patches (places × taps) times kernel matrix (taps × channels), per group."""
    grid = _Grid(x, kernel, stride, padding, dilation, groups, layout)
    outputs = grid.kernel.shape[0] // groups
    rows: list[list[Array]] = [[] for _ in range(groups)]
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
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> npt.NDArray[np.int64]:
    """Returns, for each entry of the convolution's matrix, which weight stands there.

    Args:
      kernel_shape: (O, I, kh, kw).
      image_shape: (C, H, W) of one image.

    Returns:
      Integers, shape (O·Ho·Wo, C·H·W): the flat index of a weight in the kernel, the same for all
      entries that are tied, or −1 where the entry is always zero.
    """
    kernel = np.arange(1, np.prod(kernel_shape) + 1).reshape(kernel_shape)
    x = np.zeros((1, *image_shape), np.int64)
    grid = _Grid(x, kernel, stride, padding, dilation, groups, "NCHW")
    matrix = np.zeros((*grid.output_shape[1:], *image_shape), np.int64)
    for channel, i, j, window in grid.cells():
        seen = np.zeros_like(grid.padded)
        seen[window] = kernel[channel]
        matrix[channel, i, j] = grid.unpad(seen)[0]
    return matrix.reshape(int(np.prod(grid.output_shape[1:])), -1) - 1


def conv_matrix(kernel: Array, image_shape: tuple[int, int, int], **settings: Any) -> Array:
    """Returns the matrix M with y = M·x for one image, flattened in the order CHW.

    Args:
      kernel: shape (O, I, kh, kw).
      image_shape: (C, H, W) of one image.
      **settings: stride, padding, dilation and groups, as for `tied_indices`.

    Returns:
      The matrix, shape (O·Ho·Wo, C·H·W). For a 3×3 image and a 2×2 kernel: four rows of nine
      columns, four weights in each row and five zeros.
    """
    indices = tied_indices(kernel.shape, image_shape, **settings)
    return np.where(indices < 0, 0, kernel.ravel()[indices])


def tied_gradient(matrix_gradient: Array, indices: npt.NDArray[np.int64], size: int) -> Array:
    """Returns the gradient of each weight: the sum over the entries tied to it.

    Args:
      matrix_gradient: gradient of every entry of the matrix as if all were free.
      indices: as `tied_indices` gives them; entries of −1 are zeros and pass nothing on.
      size: number of weights of the kernel.
    """
    used = indices >= 0
    return np.bincount(indices[used], weights=matrix_gradient[used], minlength=size)
