"""Networks for the measurement of watched loops, of sizes that people train, in Flax NNX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx


class DeepMLP(nnx.Module):
    """A stack of linear layers with skip connections."""

    def __init__(self, depth: int, width: int, *, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth)])
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = x + 0.1 * nnx.relu(layer(x))
        return self.head(x)


class Residual(nnx.Module):
    """A residual block of convolutions with batch norm.

    Args:
      sizes: number of channels before the block and after each of its convolutions.
      kernels: the width of each kernel.
      stride: of the block, taken by the first kernel wider than 1.
    """

    def __init__(self, sizes: list[int], kernels: list[int], stride: int, *, rngs: nnx.Rngs):
        def conv(i: int, o: int, kernel: int, stride: int = 1) -> nnx.Conv:
            return nnx.Conv(i, o, (kernel, kernel), strides=stride, use_bias=False, rngs=rngs)

        strided = kernels.index(3)
        pairs = zip(sizes[:-1], sizes[1:], kernels, strict=True)
        self.convs = nnx.List(
            [conv(i, o, k, stride if n == strided else 1) for n, (i, o, k) in enumerate(pairs)]
        )
        self.norms = nnx.List([nnx.BatchNorm(size, rngs=rngs) for size in sizes[1:]])
        changes = stride > 1 or sizes[0] != sizes[-1]
        skip = [conv(sizes[0], sizes[-1], 1, stride), nnx.BatchNorm(sizes[-1], rngs=rngs)]
        self.skip = nnx.List(skip if changes else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for n, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(nnx.relu(y) if n else y))
        for layer in self.skip:
            x = layer(x)
        return nnx.relu(y + x)


class StagedResNet(nnx.Module):
    """ResNet-18 with a stem for small images, or ResNet-50.

    References:
      He et al. 2015, https://arxiv.org/abs/1512.03385
    """

    def __init__(self, blocks: list[int], *, deep: bool, rngs: nnx.Rngs):
        width, kernel, stride = (64, 7, 2) if deep else (64, 3, 1)
        self.stem = nnx.Conv(3, width, (kernel, kernel), strides=stride, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        layers, channels = [], width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            sizes = [inner, inner, 4 * inner] if deep else [inner, inner]
            for block in range(count):
                kernels = [1, 3, 1] if deep else [3, 3]
                stride = 2 if stage and not block else 1
                layers.append(Residual([channels, *sizes], kernels, stride, rngs=rngs))
                channels = sizes[-1]
        self.blocks = nnx.List(layers)
        self.head = nnx.Linear(channels, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class Encoder(nnx.Module):
    """A block of a transformer."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(3, width, decode=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norms[0](x))
        return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class ViT(nnx.Module):
    """A small vision transformer with patches of 8×8.

    References:
      Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929
    """

    def __init__(self, depth: int, width: int, *, rngs: nnx.Rngs):
        self.patches = nnx.Conv(3, width, (8, 8), strides=8, rngs=rngs)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (64, width)))
        self.blocks = nnx.List([Encoder(width, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x).reshape(len(x), 64, -1) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


# Each network with the shape of its batch; for a quick run, a small one.
NETWORKS: dict[str, Callable[[bool], tuple[nnx.Module, tuple[int, ...]]]] = {
    "MLP, 200 layers of 64": lambda quick: (
        DeepMLP(3 if quick else 200, 64, rngs=nnx.Rngs(0)),
        (128, 64),
    ),
    "ResNet-50, 64×64, batch 8": lambda quick: (
        StagedResNet([1, 1] if quick else [3, 4, 6, 3], deep=True, rngs=nnx.Rngs(0)),
        (8, 64, 64, 3),
    ),
    "ViT, 12 blocks of 192": lambda quick: (
        ViT(1 if quick else 12, 192, rngs=nnx.Rngs(0)),
        (8, 64, 64, 3),
    ),
    "ResNet-18, 32×32, batch 64": lambda quick: (
        StagedResNet([1, 1] if quick else [2, 2, 2, 2], deep=False, rngs=nnx.Rngs(0)),
        (64, 32, 32, 3),
    ),
}


def batch(shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns random inputs of a shape and their labels."""
    x, y = jax.random.split(jax.random.key(0))
    return jax.random.normal(x, shape, jnp.float32), jax.random.randint(y, shape[:1], 0, 10)
