"""Pooling in every layout: the largest or the mean value of each window of pixels."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Inexact, Num

from convjax._checks import check_array
from convjax._precision import at_least_float32
from convjax.ops import geometry
from convjax.ops.geometry import Padding, Pair
from convjax.ops.layout import check_layout, check_maps, spatial_shape


def max_pool(
    x: Num[Array | np.ndarray, "A B C D"],
    window: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: int | Pair | Padding | str = 0,
    layout: str = "NHWC",
) -> Num[Array, "E F G H"]:
    """Returns the largest value of each window and channel; padding is below every value.

    `flax.linen.max_pool` and `nnx.max_pool` take axes NHWC alone, and pool images NCHW over
    channels and rows without an error.

    Args:
      x: images; axes as `layout` says.
      window: pixels; an int or a pair (height, width).
      stride: pixels between neighbouring windows; the window's size by default, as in PyTorch.
      padding: as for `convjax.conv2d`.
      layout: "NHWC", "NCHW" or "CHWN".

    Raises:
      TypeError: if `x` is not an array, or a size is not an integer.
      ValueError: for a wrong number of axes, a size below 1, a negative padding, a padding of a
        window or more, or a window larger than the padded image.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import max_pool
      >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> max_pool(x, 2)[0, :, :, 0].tolist()
      [[5.0, 7.0], [13.0, 15.0]]
      >>> max_pool(jnp.ones((64, 3, 112, 112)), 3, stride=2, padding=1, layout="NCHW").shape
      (64, 3, 56, 56)
    """
    check_array("x", x)
    x = jnp.asarray(x)
    inexact = jnp.issubdtype(x.dtype, jnp.floating)
    if not inexact and not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"x must be of real numbers, got {x.dtype}. Convert it with astype.")
    lowest = -jnp.inf if inexact else jnp.iinfo(x.dtype).min
    return _pooled(x, lowest, lax.max, window, stride, padding, layout)


def avg_pool(
    x: Inexact[Array | np.ndarray, "A B C D"],
    window: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: int | Pair | Padding | str = 0,
    layout: str = "NHWC",
) -> Inexact[Array, "E F G H"]:
    """Returns the mean of each window and channel, with padding as zeros.

    Half precision is summed in float32: in bfloat16 a sum stops to grow at 256 times a pixel.

    Args:
      x: images; axes as `layout` says.
      window, stride, padding, layout: as for `max_pool`.

    Raises:
      TypeError, ValueError: as for `max_pool`.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import avg_pool
      >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> avg_pool(x, 2)[0, :, :, 0].tolist()
      [[2.5, 4.5], [10.5, 12.5]]
    """
    check_array("x", x)
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(
            f"x must be of floating point to have means, got {x.dtype}. Convert it with "
            "astype(jnp.float32)."
        )
    height, width = geometry.pair("window", window, minimum=1)
    sums = _pooled(at_least_float32(x), 0, lax.add, window, stride, padding, layout)
    return (sums / jnp.asarray(height * width, sums.dtype)).astype(x.dtype)


def _pooled(
    x: Array,
    initial: Any,
    operation: Callable[..., Any],
    window: int | Pair,
    stride: int | Pair | None,
    padding: int | Pair | Padding | str,
    layout: str,
) -> Array:
    """Returns the windows of images, reduced from an initial value by an operation."""
    layout = check_layout(layout)
    check_maps(x, layout)
    size = geometry.pair("window", window, minimum=1)
    step = size if stride is None else geometry.pair("stride", stride, minimum=1)
    pixels = spatial_shape(x.shape, layout)
    sides = geometry.resolve_padding(
        padding, size=pixels, kernel_size=size, stride=step, dilation=(1, 1)
    )
    for pixel, extent, side in zip(pixels, size, sides, strict=True):
        if max(side) >= extent:
            raise ValueError(
                f"padding must be below the window, got {max(side)} of a window of {extent} "
                "pixels: a window of padding alone has no value. Pad less."
            )
        geometry.output_size(pixel, extent, padding=side)  # raises for a window that is too large
    windows, strides, pads = [1] * 4, [1] * 4, [(0, 0)] * 4
    for i, letter in enumerate("HW"):
        axis = layout.index(letter)
        windows[axis], strides[axis], pads[axis] = size[i], step[i], sides[i]
    # A value of NumPy, by which JAX knows the maximum and the sum, which have derivatives.
    start = np.asarray(initial, x.dtype)
    return lax.reduce_window(x, start, operation, windows, strides, pads)
