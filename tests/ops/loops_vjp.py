"""The gradients of a convolution by loops over its output cells: an oracle for tests."""

from typing import Unpack

import numpy as np

from convjax.ops.layout import KERNEL_AXES, permutation
from convjax.ops.reference import ConvSettings, _Grid


def conv2d_loops_vjp(
    x: np.ndarray,
    kernel: np.ndarray,
    cotangent: np.ndarray,
    *,
    layout: str = "NHWC",
    **settings: Unpack[ConvSettings],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the gradients of sum(y · cotangent) with respect to x, kernel and bias.

    The cotangent of an output cell flows back along the products that made the cell: to its pixels
    times the weights, and to its weights times the pixels. The sum over cells is the effect of
    tying the weights.
    """
    grid = _Grid(x, kernel, layout=layout, **settings)
    g = cotangent.transpose(permutation(layout, "NCHW"))
    d_padded = np.zeros_like(grid.padded)
    d_kernel = np.zeros_like(grid.kernel)
    for channel, i, j, window in grid.cells():
        received = g[:, channel, i, j][:, None, None, None]
        d_padded[window] += received * grid.kernel[channel]
        d_kernel[channel] += (received * grid.padded[window]).sum(axis=0)
    dx = grid.unpad(d_padded).transpose(permutation("NCHW", layout))
    dw = d_kernel.transpose(permutation("OIHW", KERNEL_AXES[layout]))
    return dx, dw, g.sum(axis=(0, 2, 3))
