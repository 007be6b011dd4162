"""Residual networks for large and small images, in every layout.

Images are passed as NHWC and transposed once, before the first layer. Kernels are drawn as in
torchvision: normal with a standard deviation of √(2/(kh·kw·O)).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Inexact, Num

from convjax._checks import check_type, check_whole, near_match
from convjax.nn.layers import Linear
from convjax.nn.models import NORMS, ConvBlock
from convjax.nn.pooling import GlobalAvgPool, MaxPool
from convjax.ops.layout import check_layout, images_to, resolve_layout

SHORTCUTS = ("projection", "padding")
STEMS = ("imagenet", "small")

# Channels, kernel size and stride of one convolution: inputs, outputs, pixels, pixels.
_Convolution = tuple[int, int, int, int]


class _ResidualBlock(nnx.Module):
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
        in_features = check_whole("in_features", in_features, 1)
        features = check_whole("features", features, 1)
        _check_choice("shortcut", shortcut, (*SHORTCUTS, None))
        _check_choice("norm", norm, (*NORMS, None))
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
            [_conv_block(c, activate=i < len(plan) - 1, **settings) for i, c in enumerate(plan)]
        )
        projects = changes and shortcut == "projection"
        projection = in_features, self.out_features, 1, self.stride
        self.projection = nnx.data(
            _conv_block(projection, activate=False, **settings) if projects else None
        )
        if zero_init and self.skip:
            _set_to_zero(self.layers[-1])

    def _convolutions(self, in_features: int, features: int) -> list[_Convolution]:
        raise NotImplementedError

    def __call__(self, x: Num[Array | np.ndarray, "A B C D"]) -> Inexact[Array, "E F G H"]:
        """Maps maps to maps, axes of both as the layout says."""
        y = x
        for layer in self.layers:
            y = layer(y)
        if self.skip:
            y = y + (self._padded(x) if self.projection is None else self.projection(x))
        return nnx.relu(y)

    def _padded(self, x: Array | np.ndarray) -> Array | np.ndarray:
        """Returns every `stride`-th pixel, with zeros for the channels that the input lacks."""
        pixels = tuple(
            slice(None, None, self.stride if axis in "HW" else 1) for axis in self.layout
        )
        missing = self.out_features - x.shape[self.layout.index("C")]
        return jnp.pad(x[pixels], [(0, missing if axis == "C" else 0) for axis in self.layout])


class BasicBlock(_ResidualBlock):
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
      TypeError: if `rngs` is not `nnx.Rngs`, or a size is not a whole number.
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

    def _convolutions(self, in_features: int, features: int) -> list[_Convolution]:
        return [(in_features, features, 3, self.stride), (features, features, 3, 1)]


class Bottleneck(_ResidualBlock):
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

    def _convolutions(self, in_features: int, features: int) -> list[_Convolution]:
        return [
            (in_features, features, 1, 1),
            (features, features, 3, self.stride),
            (features, self.expansion * features, 1, 1),
        ]


BLOCKS: dict[str, type[_ResidualBlock]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNet(nnx.Module):
    """A residual network: a stem, stages of blocks, the mean over all pixels, and a linear layer.

    The first block of each stage but the first has stride 2.

    Args:
      depths: number of blocks of each stage, such as (3, 4, 6, 3).
      widths: channels of the convolutions of each stage; the output of a bottleneck has four times
        as many.
      block: "basic" or "bottleneck".
      in_features: channels of the images.
      classes: number of logits.
      stem: "imagenet", a 7×7 convolution and a maximum over 3×3 pixels, each with stride 2, or
        "small", a 3×3 convolution with stride 1.
      shortcut, zero_init, norm: as for `convjax.nn.BasicBlock`. The plain network, without skip
        connections, has the shortcut None.
      layout: "NHWC", "NCHW", "CHWN" or "auto" (CHWN on CPU, NHWC elsewhere).
      method: as for `convjax.conv2d`.
      dtype: of the computation, such as jnp.bfloat16; None for the widest of images and parameters.
      param_dtype: of the parameters; the running statistics of batch norm are at least float32.
      rngs: source of the initial parameters. A seed gives the same network in every layout.

    Attributes:
      stem: the first convolution with its norm.
      pool: the maximum after it; None for small images.
      stages: the blocks of each stage.
      head: the linear layer.

    Raises:
      TypeError: if `rngs` is not `nnx.Rngs`, or a number is not a whole number.
      ValueError: for depths and widths that are not one per stage, a number below 1, or an unknown
        block, stem, shortcut, norm or layout.

    References:
      He et al., "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> from flax import nnx
      >>> settings = {"stem": "small", "classes": 10, "layout": "NCHW", "rngs": nnx.Rngs(0)}
      >>> model = convjax.ResNet((1, 1), (8, 16), **settings)
      >>> images = jnp.ones((2, 32, 32, 3))
      >>> model.features(images).shape, model(images).shape
      ((2, 16, 16, 16), (2, 10))

      The plain network of the same depth:

      >>> plain = convjax.ResNet((1, 1), (8, 16), shortcut=None, **settings)
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        *,
        block: str = "basic",
        in_features: int = 3,
        classes: int = 1000,
        stem: str = "imagenet",
        shortcut: str | None = "projection",
        zero_init: bool = True,
        norm: str | None = "batch",
        layout: str = "auto",
        method: str = "auto",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_type("rngs", rngs, nnx.Rngs, "nnx.Rngs(0) makes one from a seed.")
        depths = [check_whole("depths", number, 1) for number in depths]
        widths = [check_whole("widths", number, 1) for number in widths]
        if not depths or len(depths) != len(widths):
            raise ValueError(
                f"depths and widths must have one number per stage each, got {len(depths)} and "
                f"{len(widths)}: {tuple(depths)} and {tuple(widths)}."
            )
        _check_choice("block", block, tuple(BLOCKS))
        _check_choice("stem", stem, STEMS)
        _check_choice("norm", norm, (*NORMS, None))
        self.layout = resolve_layout(layout)
        types = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        settings: dict[str, Any] = {"norm": norm, "layout": self.layout, "method": method, **types}
        in_features = check_whole("in_features", in_features, 1)
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        first = in_features, widths[0], size, stride
        self.stem = _conv_block(first, activate=True, use_bias=norm is None, **settings)
        pool = MaxPool(3, stride=2, padding=1, layout=self.layout) if stem == "imagenet" else None
        self.pool = nnx.data(pool)
        stages, features = [], widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for number in range(depth):
                made = BLOCKS[block](
                    features,
                    width,
                    stride=2 if stage and not number else 1,
                    shortcut=shortcut,
                    zero_init=zero_init,
                    **settings,
                )
                features = made.out_features
                blocks.append(made)
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.mean = GlobalAvgPool(layout=self.layout)
        self.head = Linear(features, check_whole("classes", classes, 1), **types)

    def features(self, images: Num[Array | np.ndarray, "N H W C"]) -> Inexact[Array, "E F G I"]:
        """Maps images (N, H, W, C) to the maps of the last stage; axes as `layout` says."""
        x = self.stem(images_to(images, self.layout))
        x = x if self.pool is None else self.pool(x)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return x

    def __call__(self, images: Num[Array | np.ndarray, "N H W C"]) -> Inexact[Array, "N classes"]:
        """Maps images (N, H, W, C) to logits (N, classes)."""
        return self.head(self.mean(self.features(images)))


def resnet18(**settings: Any) -> ResNet:
    """Returns ResNet-18: 11,689,512 parameters for 1000 classes, 1.81 G multiplications.

    Args:
      **settings: those of `convjax.ResNet` except depths and block; `rngs` is required.

    Raises:
      TypeError, ValueError: as `convjax.ResNet`.

    Examples:
      >>> import convjax, jax
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: convjax.resnet18(rngs=nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      11689512
    """
    return ResNet((2, 2, 2, 2), block="basic", **settings)


def resnet34(**settings: Any) -> ResNet:
    """Returns ResNet-34: 21,797,672 parameters for 1000 classes, 3.66 G multiplications.

    Args:
      **settings: those of `convjax.ResNet` except depths and block; `rngs` is required.

    Raises:
      TypeError, ValueError: as `convjax.ResNet`.

    Examples:
      >>> import convjax, jax
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: convjax.resnet34(rngs=nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      21797672
    """
    return ResNet((3, 4, 6, 3), block="basic", **settings)


def resnet50(**settings: Any) -> ResNet:
    """Returns ResNet-50: 25,557,032 parameters for 1000 classes, 4.09 G multiplications.

    Args:
      **settings: those of `convjax.ResNet` except depths and block; `rngs` is required.

    Raises:
      TypeError, ValueError: as `convjax.ResNet`.

    Examples:
      >>> import convjax, jax
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: convjax.resnet50(rngs=nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      25557032
    """
    return ResNet((3, 4, 6, 3), block="bottleneck", **settings)


def cifar_resnet(depth: int = 20, *, classes: int = 10, **settings: Any) -> ResNet:
    """Returns the paper's network for 32×32 pixels: three stages of 16, 32 and 64 channels.

    As in the paper, shortcuts have no parameters: channels are padded with zeros.

    Args:
      depth: number of layers, 6n + 2 for n blocks per stage: 20, 32, 44, 56, 110, …
      classes: number of logits.
      **settings: further ones of `convjax.ResNet`; `rngs` is required. With `shortcut=None` it is
        the paper's plain network.

    Raises:
      TypeError: as `convjax.ResNet`, or if depth is not a whole number.
      ValueError: as `convjax.ResNet`, or for another depth.

    References:
      He et al., "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385,
      section 4.2; table 6 gives 0.27 M parameters for 20 layers and 0.85 M for 56.

    Examples:
      >>> import convjax, jax
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: convjax.cifar_resnet(20, rngs=nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      269722
    """
    if check_whole("depth", depth, 8) % 6 != 2:
        raise ValueError(
            f"depth must be 6n + 2, such as 20, 32, 44, 56 or 110, got {depth}. `convjax.ResNet` "
            "takes any number of blocks."
        )
    defaults = {"block": "basic", "stem": "small", "shortcut": "padding"}
    blocks = (depth - 2) // 6
    return ResNet((blocks,) * 3, (16, 32, 64), classes=classes, **{**defaults, **settings})


def _conv_block(convolution: _Convolution, **settings: Any) -> ConvBlock:
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


def _check_choice(name: str, value: Any, choices: Sequence[str | None]) -> None:
    """Raises ValueError if an argument is not one of the choices."""
    if value not in choices:
        names = [choice for choice in choices if choice]
        shown = ", ".join(map(repr, names)) + (" or None" if None in choices else "")
        raise ValueError(
            f"{name} must be one of {shown}, got {value!r}{near_match(str(value), names) or '.'}"
        )
