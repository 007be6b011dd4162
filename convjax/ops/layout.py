"""Memory layouts: the order of the axes of images and kernels.

A layout is written as the axis letters of a batch of images: N examples, C channels, H rows,
W columns. Kernels have the letters H, W, I (input channels per group) and O (output channels).
"""

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

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
    """Returns the layout of a network on this backend: `layout` itself, or the choice of "auto".

    "auto" means CHWN on CPU, where patches times matrix in that order is the fastest form of a
    small convolution, and NHWC elsewhere, where the compiler picks the physical order itself.

    Raises:
      ValueError: if `layout` is not "NHWC", "NCHW", "CHWN" or "auto".

    Examples:
      >>> from convjax.ops import resolve_layout
      >>> resolve_layout("NCHW"), resolve_layout("auto") in ("CHWN", "NHWC")
      ('NCHW', True)
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
    """Returns the permutation of axes that transposes an array from order `source` to `target`."""
    return tuple(source.index(letter) for letter in target)


def images_to(
    x: Shaped[Array | np.ndarray, "A B C D"], layout: str, *, source: str = "NHWC"
) -> Shaped[Array, "E F G H"]:
    """Returns a batch of images with its axes transposed from layout `source` to `layout`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import images_to
      >>> images_to(jnp.zeros((64, 28, 28, 3)), "CHWN").shape
      (3, 28, 28, 64)
    """
    return jnp.transpose(x, permutation(check_layout(source), check_layout(layout)))


def kernel_to(
    kernel: Shaped[Array | np.ndarray, "A B C D"], layout: str, *, source: str
) -> Shaped[Array, "E F G H"]:
    """Returns a kernel with its axes transposed from those of layout `source` to those of `layout`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import kernel_to
      >>> kernel_to(jnp.zeros((3, 3, 16, 32)), "NCHW", source="NHWC").shape  # HWIO to OIHW
      (32, 16, 3, 3)
    """
    axes = permutation(KERNEL_AXES[check_layout(source)], KERNEL_AXES[check_layout(layout)])
    return jnp.transpose(kernel, axes)


def check_maps(x: Array | np.ndarray, layout: str) -> None:
    """Raises ValueError if a batch of maps does not have the four axes of its layout."""
    if x.ndim != 4:
        raise ValueError(
            f"x must have the four axes {layout}, got shape {tuple(x.shape)}. Add axes of size 1 "
            "where they are missing."
        )


def flatten(
    x: Shaped[Array | np.ndarray, "A B C D"], *, layout: str = "NHWC"
) -> Shaped[Array, "N features"]:
    """Returns maps as vectors (N, C·H·W), in the order C, H, W in every layout, as in PyTorch.

    Args:
      x: maps; axes as `layout` says.
      layout: "NHWC", "NCHW" or "CHWN".

    Raises:
      ValueError: for a wrong number of axes or an unknown layout.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import flatten
      >>> flatten(jnp.zeros((3, 28, 28, 64)), layout="CHWN").shape
      (64, 2352)
    """
    layout = check_layout(layout)
    check_maps(x, layout)
    x = jnp.transpose(x, permutation(layout, "NCHW"))
    return x.reshape(x.shape[0], -1)


def spatial_shape(shape: Sequence[int], layout: str) -> tuple[int, int]:
    """Returns (height, width) of a batch of images of this shape."""
    return shape[axis_of("H", layout)], shape[axis_of("W", layout)]
