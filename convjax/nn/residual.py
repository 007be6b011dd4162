"""Residual networks for large and small images, in every layout.

Images are passed as NHWC and transposed once, before the first layer. Kernels are drawn as in
torchvision: normal with a standard deviation of √(2/(kh·kw·O)).
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Inexact, Num

from convjax._checks import check_type, check_whole
from convjax._names import NORMS
from convjax.nn.layers import Linear
from convjax.nn.pooling import GlobalAvgPool, MaxPool
from convjax.nn.residual_blocks import BLOCKS, check_choice, conv_block
from convjax.ops.layout import images_to, resolve_layout

STEMS = ("imagenet", "small")


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
      TypeError: if `rngs` is not `nnx.Rngs`, a number not a whole one, or zero_init neither True
        nor False.
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
        check_choice("block", block, tuple(BLOCKS))
        check_choice("stem", stem, STEMS)
        check_choice("norm", norm, (*NORMS, None))
        self.layout = resolve_layout(layout)
        types = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        settings: dict[str, Any] = {"norm": norm, "layout": self.layout, "method": method, **types}
        in_features = check_whole("in_features", in_features, 1)
        classes = check_whole("classes", classes, 1)
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        first = in_features, widths[0], size, stride
        self.stem = conv_block(first, activate=True, use_bias=norm is None, **settings)
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
        self.head = Linear(features, classes, **types)

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
    defaults = {"widths": (16, 32, 64), "block": "basic", "stem": "small", "shortcut": "padding"}
    blocks = (depth - 2) // 6
    return ResNet((blocks,) * 3, classes=classes, **{**defaults, **settings})
