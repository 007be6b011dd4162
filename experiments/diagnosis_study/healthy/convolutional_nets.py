"""Convolutional networks of the zoo that have no shortcuts, and fully connected ones."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.diagnosis_study.healthy.layer_maker import LayerMaker

Function = Callable[[jax.Array], jax.Array]
PIXELS = 28 * 28


class MLP(nnx.Module):
    """Two hidden fully connected layers."""

    def __init__(self, outputs: int, make: LayerMaker, *, function: Function):
        self.layers = nnx.List([make.linear(PIXELS, 64), make.linear(64, 64)])
        self.head = make.head(64, outputs)
        self.function = function

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        x = images.reshape(len(images), -1)
        for layer in self.layers:
            x = self.function(layer(x))
        return self.head(x)


class ConvNorm(nnx.Module):
    """A convolution, a normalisation unless its kind is "", and a non-linearity."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        make: LayerMaker,
        *,
        size: int = 3,
        stride: int = 1,
        norm: str = "batch",
        depthwise: bool = False,
        function: Function = nnx.relu,
    ):
        self.conv = make.conv(channels, outputs, size, stride=stride, depthwise=depthwise)
        self.norm = make.norm(norm, outputs)
        self.function = function

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, H, W, C) to maps."""
        x = self.conv(x)
        return self.function(x if self.norm is None else self.norm(x))


class StridedNet(nnx.Module):
    """Convolutions of stride 2, as in the chapter."""

    def __init__(
        self,
        outputs: int,
        make: LayerMaker,
        *,
        norm: str = "",
        function: Function = nnx.relu,
        widths: Sequence[int] = (8, 16, 32),
    ):
        self.blocks = nnx.List(
            [
                ConvNorm(i, o, make, stride=2, norm=norm, function=function)
                for i, o in pairwise((1, *widths))
            ]
        )
        self.head = make.head(4 * 4 * widths[-1], outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        x = images
        for block in self.blocks:
            x = block(x)
        return self.head(x.reshape(len(x), -1))


class PoolingNet(nnx.Module):
    """Two convolutions with maximum pooling and two fully connected layers."""

    def __init__(self, outputs: int, make: LayerMaker):
        self.conv1, self.conv2 = make.conv(1, 6, 5), make.conv(6, 16)
        self.hidden = make.linear(7 * 7 * 16, 64)
        self.head = make.head(64, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        x = images
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
        return self.head(nnx.relu(self.hidden(x.reshape(len(x), -1))))


class DenseBlock(nnx.Module):
    """Layers that each add `growth` channels to all channels before."""

    def __init__(self, channels: int, growth: int, layers: int, make: LayerMaker):
        widths = [channels + i * growth for i in range(layers)]
        self.norms = nnx.List([make.batch_norm(width) for width in widths])
        self.convs = nnx.List([make.conv(width, growth) for width in widths])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, H, W, C) to maps with more channels."""
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = jnp.concatenate([x, conv(nnx.relu(norm(x)))], -1)
        return x


class DenseNet(nnx.Module):
    """Two dense blocks with a transition between them."""

    def __init__(self, outputs: int, make: LayerMaker):
        self.stem = make.conv(1, 16, 5, stride=4)
        self.dense1 = DenseBlock(16, 8, 2, make)
        self.transition = ConvNorm(32, 16, make, size=1)
        self.dense2 = DenseBlock(16, 8, 2, make)
        self.norm = make.batch_norm(32)
        self.head = make.head(32, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        x = self.transition(self.dense1(self.stem(images)))
        x = self.dense2(nnx.avg_pool(x, (2, 2), strides=(2, 2)))
        return self.head(jnp.mean(nnx.relu(self.norm(x)), (1, 2)))
