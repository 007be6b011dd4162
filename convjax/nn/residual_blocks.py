"""Blocks of residual networks: convolutions whose input is added to their output, in any layout.

Kernels are drawn as in torchvision: normal with a standard deviation of √(2/(kh·kw·O)).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Inexact, Num

from convjax._checks import check_flags, check_type, check_whole, near_match
from convjax._names import NORMS
from convjax.nn._relu import relu
from convjax.nn.models import ConvBlock
from convjax.ops.layout import check_layout

SHORTCUTS = ("projection", "padding")

# One convolution: its inputs, outputs, kernel size and stride.
Convolution = tuple[int, int, int, int]


class ResidualBase(nnx.Module):
    """A chain of convolutions whose input is added to its output; see the classes derived."""

    expansion: int

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int = 1,
        shortcut: str | None = "projection",
        zero_init: bool = True,
        norm: str | None = "batch",
        use_bias: bool | None = None,
        layout: str = "NHWC",
        method: str = "auto",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_type("rngs", rngs, nnx.Rngs, "nnx.Rngs(0) makes one from a seed.")
        check_flags(zero_init=zero_init)
        in_features = check_whole("in_features", in_features, 1)
        features = check_whole("features", features, 1)
        check_choice("shortcut", shortcut, (*SHORTCUTS, None))
        check_choice("norm", norm, (*NORMS, None))
        self.layout = check_layout(layout)
        self.stride, self.out_features = check_whole("stride", stride, 1), self.expansion * features
        self.skip = shortcut is not None
        changes = self.stride > 1 or in_features != self.out_features
        if changes and shortcut == "padding" and in_features > self.out_features:
            raise ValueError(
                f"shortcut must be 'projection' for a block with fewer outputs than inputs, got "
                f"'padding' for {in_features} inputs and {self.out_features} outputs."
            )
        settings = {
            "norm": norm,
            "use_bias": norm is None if use_bias is None else use_bias,
            "layout": layout,
            "method": method,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        plan = self._convolutions(in_features, features)
        self.layers = nnx.List(
            [conv_block(c, activate=i < len(plan) - 1, **settings) for i, c in enumerate(plan)]
        )
        projects = changes and shortcut == "projection"
        projection = in_features, self.out_features, 1, self.stride
        self.projection = nnx.data(
            conv_block(projection, activate=False, **settings) if projects else None
        )
        if zero_init and self.skip:
            _set_to_zero(self.layers[-1])

    def _convolutions(self, in_features: int, features: int) -> list[Convolution]:
        raise NotImplementedError

    def __call__(self, x: Num[Array | np.ndarray, "A B C D"]) -> Inexact[Array, "E F G H"]:
        """Maps maps to maps, axes of both as the layout says."""
        y = x
        for layer in self.layers:
            y = layer(y)
        if self.skip:
            y = y + (self._padded(x) if self.projection is None else self.projection(x))
        return relu(y)  # by its output: the sum need not be kept

    def _padded(self, x: Array | np.ndarray) -> Array | np.ndarray:
        """Returns every `stride`-th pixel, with zeros for the channels that the input lacks."""
        pixels = tuple(
            slice(None, None, self.stride if axis in "HW" else 1) for axis in self.layout
        )
        missing = self.out_features - x.shape[self.layout.index("C")]
        return jnp.pad(x[pixels], [(0, missing if axis == "C" else 0) for axis in self.layout])


class BasicBlock(ResidualBase):
    """Two 3×3 convolutions whose input is added to their output: ReLU(x + f(x)).

    Each convolution is followed by the norm, and the first by ReLU. The first has the stride.

    Args:
      in_features: channels of the input.
      features: channels of both convolutions, and of the output.
      stride: pixels.
      shortcut: what is added where the shape changes: "projection", a 1×1 convolution with the
        stride and a norm, or "padding", every stride-th pixel and zeros for the further channels.
        Where the shape stays the same the input itself is added. None adds nothing anywhere.
      zero_init: whether the block begins as its shortcut alone: the scale of its last norm is 0, or
        without a norm the kernel and bias of its last convolution. Without skip connections it has
        no effect, since nothing would pass the block.
      norm: as for `convjax.ConvNet`.
      use_bias: whether the convolutions have a bias; by default where no norm follows.
      layout: of the maps: "NHWC", "NCHW" or "CHWN".
      method: as for `convjax.conv2d`.
      dtype: of the computation; None for the widest dtype of input and parameters.
      param_dtype: of the parameters.
      rngs: source of the initial parameters.

    Attributes:
      layers: the convolutions with their norms.
      projection: the 1×1 convolution with its norm; None where there is none.
      out_features: channels of the output.

    Raises:
      TypeError: if `rngs` is not `nnx.Rngs`, a size is not a whole number, or zero_init is neither
        True nor False.
      ValueError: for a size below 1, an unknown shortcut, norm or layout, or a padding to fewer
        channels.

    References:
      He et al., "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385,
      figure 5 and section 3.3; for zero_init Goyal et al., https://arxiv.org/abs/1706.02677,
      section 5.1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from convjax.nn import BasicBlock
      >>> block = BasicBlock(16, 32, stride=2, rngs=nnx.Rngs(0))
      >>> block(jnp.ones((8, 32, 32, 16))).shape
      (8, 16, 16, 32)
    """

    expansion = 1

    def _convolutions(self, in_features: int, features: int) -> list[Convolution]:
        return [(in_features, features, 3, self.stride), (features, features, 3, 1)]


class Bottleneck(ResidualBase):
    """Convolutions of 1×1, 3×3 and 1×1 whose input is added to their output: ReLU(x + f(x)).

    The first reduces the channels and the last expands them to four times as many. The 3×3
    convolution has the stride, as in torchvision; in the paper the first has it.

    Args:
      in_features: channels of the input.
      features: channels of the first two convolutions; the output has four times as many.
      stride, shortcut, zero_init, norm, use_bias, layout, method, dtype, param_dtype, rngs: as for
        `convjax.nn.BasicBlock`.

    Attributes:
      layers, projection, out_features: as those of `convjax.nn.BasicBlock`.

    Raises:
      TypeError, ValueError: as `convjax.nn.BasicBlock`.

    References:
      He et al., "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385,
      figure 5.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from convjax.nn import Bottleneck
      >>> block = Bottleneck(64, 16, layout="NCHW", rngs=nnx.Rngs(0))
      >>> block(jnp.ones((8, 64, 14, 14))).shape, block.projection
      ((8, 64, 14, 14), None)
    """

    expansion = 4

    def _convolutions(self, in_features: int, features: int) -> list[Convolution]:
        return [
            (in_features, features, 1, 1),
            (features, features, 3, self.stride),
            (features, self.expansion * features, 1, 1),
        ]


# The blocks by their names.
BLOCKS: dict[str, type[ResidualBase]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def conv_block(convolution: Convolution, **settings: Any) -> ConvBlock:
    """Returns a convolution with its norm; the kernel is normal, and the bias 0."""
    inputs, outputs, size, stride = convolution
    block = ConvBlock(inputs, outputs, size, stride=stride, activate_first=False, **settings)
    kernel = block.conv.kernel
    scale = math.sqrt(2 / (size * size * outputs))
    drawn = jax.random.normal(settings["rngs"].params(), kernel.shape, kernel.dtype)
    block.conv.kernel[...] = (scale * drawn).astype(kernel.dtype)
    if block.conv.bias is not None:
        block.conv.bias[...] = jnp.zeros_like(block.conv.bias[...])
    return block


def _set_to_zero(layer: ConvBlock) -> None:
    """Sets the scale of a layer's norm to 0, or its kernel where it has no norm; biases are 0."""
    scale = layer.conv.kernel if layer.norm is None else layer.norm.scale
    scale[...] = jnp.zeros_like(scale[...])


def check_choice(name: str, value: Any, choices: Sequence[str | None]) -> None:
    """Raises ValueError if an argument is not one of the choices."""
    if value not in choices:
        names = [choice for choice in choices if choice]
        shown = ", ".join(map(repr, names)) + (" or None" if None in choices else "")
        raise ValueError(
            f"{name} must be one of {shown}, got {value!r}{near_match(str(value), names) or '.'}"
        )
