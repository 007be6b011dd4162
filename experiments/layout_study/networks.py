"""Networks of the comparison of layouts for chips: every distinct convolution of known ones."""

from typing import Any

import jax
from flax import nnx

from convjax import digits_net
from convjax.nn import Bottleneck, Conv
from convjax.ops import max_pool


class ResNetConvolutions(nnx.Module):
    """Every distinct convolution of ResNet-50: two blocks of each stage instead of 3, 4, 6 and 3.

    There are no norms, and no biases.

    References:
      He et al., "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385,
      table 1; with the stride in the 3×3 convolution, as in torchvision.
    """

    def __init__(self, layout: str, dtype: Any):
        rngs = nnx.Rngs(0)
        self.layout = layout
        settings = {"layout": layout, "dtype": dtype, "rngs": rngs}
        self.stem = Conv(3, 64, 7, stride=2, padding=3, use_bias=False, **settings)
        alone = {"norm": None, "use_bias": False, "zero_init": False, **settings}
        blocks, inputs = [], 64
        for stage, width in enumerate((64, 128, 256, 512)):
            blocks.append(Bottleneck(inputs, width, stride=1 if stage == 0 else 2, **alone))
            inputs = 4 * width
            blocks.append(Bottleneck(inputs, width, **alone))
        self.blocks = nnx.List(blocks)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images in the network's layout to maps."""
        x = max_pool(nnx.relu(self.stem(x)), 3, stride=2, padding=1, layout=self.layout)
        for block in self.blocks:
            x = block(x)
        return x


class DepthwiseNet(nnx.Module):
    """Every distinct convolution of MobileNet: depthwise 3×3 and 1×1, in turns, with ReLU.

    References:
      Howard et al., "MobileNets", https://arxiv.org/abs/1704.04861, table 1.
    """

    def __init__(self, layout: str, dtype: Any):
        rngs = nnx.Rngs(0)
        settings = {"use_bias": False, "layout": layout, "dtype": dtype, "rngs": rngs}
        layers, inputs = [Conv(3, 32, 3, stride=2, padding=1, **settings)], 32
        for outputs, stride in (
            *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)),
            *((1024, 2), (1024, 1)),
        ):
            layers.append(
                Conv(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, **settings)
            )
            layers.append(Conv(inputs, outputs, 1, **settings))
            inputs = outputs
        self.layers = nnx.List(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images in the network's layout to maps."""
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x


def chapter_net(layout: str, dtype: Any) -> nnx.Module:
    """Returns the chapter's network."""
    return digits_net(layout=layout, dtype=dtype, rngs=nnx.Rngs(0))
