"""Networks of the zoo with shortcuts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.diagnosis_study.healthy.convolutional_nets import ConvNorm
from experiments.diagnosis_study.healthy.layer_maker import LayerMaker

WIDTH = 16


class PostActivationBlock(nnx.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))); `squeeze` also scales the branch's channels."""

    def __init__(self, width: int, make: LayerMaker, *, squeeze: bool = False):
        self.first = ConvNorm(width, width, make)
        self.conv, self.norm = make.conv(width, width), make.batch_norm(width)
        self.squeeze = make.linear(width, width // 4) if squeeze else None
        self.excite = make.linear(width // 4, width) if squeeze else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, H, W, C) to maps of the same shape."""
        y = self.norm(self.conv(self.first(x)))
        if self.squeeze is not None and self.excite is not None:
            scale = self.excite(nnx.relu(self.squeeze(jnp.mean(y, (1, 2)))))
            y = y * nnx.sigmoid(scale)[:, None, None]
        return nnx.relu(x + y)


class PreActivationBlock(nnx.Module):
    """x + norm(conv(relu(norm(conv(relu(norm(x))))))), whose last scale starts at zero."""

    def __init__(self, width: int, make: LayerMaker):
        self.norm1, self.conv1 = make.batch_norm(width), make.conv(width, width)
        self.norm2, self.conv2 = make.batch_norm(width), make.conv(width, width)
        self.norm3 = make.batch_norm(width, zero=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, H, W, C) to maps of the same shape, at first to themselves."""
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return x + self.norm3(y)


class ConvNeXtBlock(nnx.Module):
    """A depthwise convolution of 7×7, layer norm and two linear layers, scaled by 1e-6 at first."""

    def __init__(self, width: int, make: LayerMaker):
        self.depthwise = make.conv(width, width, 7, depthwise=True)
        self.norm = make.layer_norm(width)
        self.expand, self.project = make.linear(width, 4 * width), make.linear(4 * width, width)
        self.layer_scale = nnx.Param(jnp.full(width, 1e-6, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, H, W, C) to maps of the same shape, at first almost to themselves."""
        y = self.expand(self.norm(self.depthwise(x)))
        return x + self.layer_scale[...] * self.project(nnx.gelu(y))


class InvertedResidual(nnx.Module):
    """Expands the channels, convolves each by itself and projects back without non-linearity."""

    def __init__(self, channels: int, outputs: int, make: LayerMaker, *, stride: int = 1):
        wide = 3 * channels
        self.expand = ConvNorm(channels, wide, make, size=1, function=nnx.relu6)
        self.depthwise = ConvNorm(
            wide, wide, make, stride=stride, depthwise=True, function=nnx.relu6
        )
        self.project, self.norm = make.conv(wide, outputs, 1), make.batch_norm(outputs)
        self.shortcut = stride == 1 and channels == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, H, W, C) to maps."""
        y = self.norm(self.project(self.depthwise(self.expand(x))))
        return x + y if self.shortcut else y


class PooledNet(nnx.Module):
    """A stem, blocks, the mean over the map, and the last layer.

    Args:
      outputs: number of outputs, K.
      stem: maps images to maps.
      blocks: map maps to maps.
      width: channels of the last maps.
      make: makes the last layer.
    """

    def __init__(
        self,
        outputs: int,
        stem: nnx.Module,
        blocks: list[nnx.Module],
        width: int,
        make: LayerMaker,
    ):
        self.stem, self.blocks = stem, nnx.List(blocks)
        self.head = make.head(width, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, (1, 2)))


def residual(
    block: Callable[[int, LayerMaker], nnx.Module],
) -> Callable[[int, LayerMaker], PooledNet]:
    """Returns a function that makes a residual network with a block at 7×7 and one at 4×4."""

    def build(outputs: int, make: LayerMaker) -> PooledNet:
        stem = ConvNorm(1, WIDTH, make, size=5, stride=4)
        blocks = [block(WIDTH, make), ConvNorm(WIDTH, 2 * WIDTH, make, stride=2)]
        blocks.append(block(2 * WIDTH, make))
        return PooledNet(outputs, stem, blocks, 2 * WIDTH, make)

    return build


def squeeze_excitation(width: int, make: LayerMaker) -> PostActivationBlock:
    """Returns a residual block with squeeze and excitation."""
    return PostActivationBlock(width, make, squeeze=True)


def convnext(outputs: int, make: LayerMaker) -> PooledNet:
    """Returns a ConvNeXt of two stages with one block each."""
    width = 24
    blocks = [make.layer_norm(width), ConvNeXtBlock(width, make)]
    blocks += [make.layer_norm(width), make.conv(width, 2 * width, 2, stride=2)]
    blocks += [ConvNeXtBlock(2 * width, make), make.layer_norm(2 * width)]
    return PooledNet(outputs, make.patches(width, 4), blocks, 2 * width, make)


def mobilenet(outputs: int, make: LayerMaker) -> PooledNet:
    """Returns a network of inverted residuals."""
    stem = ConvNorm(1, 8, make, size=5, stride=4, function=nnx.relu6)
    blocks = [InvertedResidual(8, WIDTH, make, stride=2), InvertedResidual(WIDTH, WIDTH, make)]
    last = ConvNorm(WIDTH, 48, make, size=1, function=nnx.relu6)
    return PooledNet(outputs, stem, [*blocks, last], 48, make)
