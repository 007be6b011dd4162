"""Memory layouts: the order of the axes of images and kernels, named in one place.

A layout is written as the axis letters of a batch of images: N examples, C channels, H rows,
W columns. Kernels have the letters H, W, I (input channels per group) and O (output channels).
"""

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp

Layout = Literal["NHWC", "NCHW", "CHWN"]

# The kernel order that goes with each image order: TensorFlow's and Flax's, PyTorch's, and
# cuda-convnet's, whose batch is the innermost axis.
KERNEL_AXES: dict[str, str] = {"NHWC": "HWIO", "NCHW": "OIHW", "CHWN": "IHWO"}


def check_layout(layout: str) -> Layout:
    """Returns `layout` if it is one of "NHWC", "NCHW" and "CHWN".

    Raises:
      ValueError: if it is anything else.
    """
    if layout not in KERNEL_AXES:
        raise ValueError(
            f"layout must be one of {', '.join(map(repr, get_args(Layout)))}, got {layout!r}."
        )
    return layout  # type: ignore[return-value]  # narrowed by the test above


def resolve_layout(layout: str) -> Layout:
    """Returns the layout that a network uses on this backend.

    "auto" means CHWN on CPU, where patches times matrix in that order is the fastest form of a
    small convolution, and NHWC elsewhere, where the compiler picks the physical order itself.
    """
    if layout == "auto":
        return "CHWN" if jax.default_backend() == "cpu" else "NHWC"
    if layout not in KERNEL_AXES:
        raise ValueError(
            f"layout must be one of {', '.join(map(repr, get_args(Layout)))} or 'auto', "
            f"got {layout!r}."
        )
    return check_layout(layout)


def axis_of(letter: str, layout: str) -> int:
    """Returns the position of the axis `letter` ("N", "C", "H" or "W") in a batch."""
    return check_layout(layout).index(letter)


def permutation(source: str, target: str) -> tuple[int, ...]:
    """Returns the axes that take an array ordered as `source` to the order `target`."""
    return tuple(source.index(letter) for letter in target)


def images_to(x: jax.Array, layout: str, *, source: str = "NHWC") -> jax.Array:
    """Orders a batch of images (axes as in `source`) as `layout` says."""
    return jnp.transpose(x, permutation(check_layout(source), check_layout(layout)))


def kernel_to(kernel: jax.Array, layout: str, *, source: str) -> jax.Array:
    """Orders a kernel of layout `source` as the layout `layout` wants it."""
    axes = permutation(KERNEL_AXES[check_layout(source)], KERNEL_AXES[check_layout(layout)])
    return jnp.transpose(kernel, axes)


def spatial_shape(shape: Sequence[int], layout: str) -> tuple[int, int]:
    """Returns (height, width) of a batch of images with `shape`."""
    return shape[axis_of("H", layout)], shape[axis_of("W", layout)]
