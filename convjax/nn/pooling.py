"""Layers without parameters that know the layout of their maps: pooling and flattening."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Inexact, Num

from convjax.ops.geometry import Padding, Pair
from convjax.ops.layout import check_layout, check_maps, flatten
from convjax.ops.pooling import avg_pool, max_pool


class _WindowPool(nnx.Module):
    """The windows of a pooling layer; what is taken of them is the derived class's."""

    def __init__(
        self,
        window: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: int | Pair | Padding | str = 0,
        layout: str = "NHWC",
    ):
        self.window, self.stride, self.padding = window, stride, padding
        self.layout = check_layout(layout)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "layout": self.layout}


class MaxPool(_WindowPool):
    """The largest value of each window and channel.

    Args:
      window: pixels; an int or a pair (height, width).
      stride: pixels between neighbouring windows; the window's size by default, as in PyTorch.
      padding: as for `convjax.conv2d`; it is below every value.
      layout: "NHWC", "NCHW" or "CHWN".

    Raises:
      ValueError: for an unknown layout.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.nn import MaxPool
      >>> MaxPool(3, stride=2, padding=1, layout="NCHW")(jnp.ones((2, 64, 112, 112))).shape
      (2, 64, 56, 56)
    """

    def __call__(self, x: Num[Array | np.ndarray, "A B C D"]) -> Num[Array, "E F G H"]:
        """Pools maps; axes of both as the layout says. Raises as `convjax.ops.max_pool` does."""
        return max_pool(x, self.window, **self._settings)


class AvgPool(_WindowPool):
    """The mean of each window and channel, with padding as zeros.

    Args:
      window: pixels; an int or a pair (height, width).
      stride: pixels between neighbouring windows; the window's size by default, as in PyTorch.
      padding: as for `convjax.conv2d`.
      layout: "NHWC", "NCHW" or "CHWN".

    Raises:
      ValueError: for an unknown layout.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.nn import AvgPool
      >>> AvgPool(2)(jnp.arange(4.0).reshape(1, 2, 2, 1)).ravel().tolist()
      [1.5]
    """

    def __call__(self, x: Inexact[Array | np.ndarray, "A B C D"]) -> Inexact[Array, "E F G H"]:
        """Pools maps; axes of both as the layout says. Raises as `convjax.ops.avg_pool` does."""
        return avg_pool(x, self.window, **self._settings)


class GlobalAvgPool(nnx.Module):
    """The mean of each channel over all pixels: maps to vectors (N, C), whatever the layout.

    Args:
      layout: "NHWC", "NCHW" or "CHWN".

    Raises:
      ValueError: for an unknown layout.

    References:
      Lin, Chen and Yan, "Network in network", https://arxiv.org/abs/1312.4400, section 3.2.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.nn import GlobalAvgPool
      >>> GlobalAvgPool(layout="CHWN")(jnp.ones((64, 7, 7, 2))).shape
      (2, 64)
    """

    def __init__(self, *, layout: str = "NHWC"):
        self.layout = check_layout(layout)

    def __call__(self, x: Inexact[Array | np.ndarray, "A B C D"]) -> Inexact[Array, "N features"]:
        """Maps maps, axes as the layout says, to vectors.

        Raises:
          ValueError: for another number of axes.
        """
        check_maps(x, self.layout)
        mean = jnp.mean(x, axis=tuple(self.layout.index(letter) for letter in "HW"))
        return mean.T if self.layout == "CHWN" else mean


class Flatten(nnx.Module):
    """Flattens maps to vectors (N, C·H·W) in the order C, H, W, as PyTorch does, in any layout.

    A linear layer after it has the same weights in every layout.

    Args:
      layout: "NHWC", "NCHW" or "CHWN".

    Raises:
      ValueError: for an unknown layout.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.Flatten.html

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.nn import Flatten
      >>> x = jnp.arange(4.0).reshape(1, 1, 2, 2)  # two pixels of two channels
      >>> Flatten()(x).tolist()
      [[0.0, 2.0, 1.0, 3.0]]
    """

    def __init__(self, *, layout: str = "NHWC"):
        self.layout = check_layout(layout)

    def __call__(self, x: Num[Array | np.ndarray, "A B C D"]) -> Num[Array, "N features"]:
        """Maps maps, axes as the layout says, to vectors. Raises as `convjax.ops.flatten` does."""
        return flatten(x, layout=self.layout)
