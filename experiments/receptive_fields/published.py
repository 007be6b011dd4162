"""Networks with published receptive fields, reduced to one channel.

A receptive field depends only on kernels, strides and paddings. The networks are those of
TensorFlow's slim, and google-research/receptive_field lists their fields, for the last map before
the global pooling. In slim's ResNets, the last unit of a block has the stride.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from convjax.ops.geometry import Pair

Branch = Sequence[tuple[Pair | int, int]]  # convolutions: kernel size and stride


class PublishedField(NamedTuple):
    """A published receptive field, in pixels."""

    size: int
    stride: int
    padding: int


class _Net(nn.Module):
    """Base class of the networks: convolutions of one channel, max pooling, branches."""

    def conv(
        self, x: jax.Array, size: Pair | int, stride: int = 1, padding: str = "SAME"
    ) -> jax.Array:
        size = (size, size) if isinstance(size, int) else size
        return nn.relu(nn.Conv(1, size, stride, padding, use_bias=False)(x))

    def chain(self, x: jax.Array, branch: Branch, padding: str = "SAME") -> jax.Array:
        for size, stride in branch:
            # `padding` applies to the layers with a stride only.
            x = self.conv(x, size, stride, padding if stride > 1 else "SAME")
        return x

    def pool(self, x: jax.Array, size: int, stride: int, padding: str = "VALID") -> jax.Array:
        return nn.max_pool(x, (size, size), (stride, stride), padding)


class AlexNet(_Net):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.pool(self.conv(x, 11, 4, "VALID"), 3, 2)
        x = self.pool(self.conv(x, 5), 3, 2)
        for _ in range(3):
            x = self.conv(x, 3)
        return self.pool(x, 3, 2)


class VGG16(_Net):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for convolutions in (2, 2, 3, 3, 3):
            for _ in range(convolutions):
                x = self.conv(x, 3)
            x = self.pool(x, 2, 2)
        return x


class SlimResNet(_Net):
    """Bottlenecks: 1×1, 3×3, 1×1.

    Attributes:
      units: number of bottlenecks of each block.
    """

    units: Sequence[int] = (3, 4, 6, 3)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.pool(self.strided(x, 7), 3, 2, "SAME")
        for block, units in enumerate(self.units):
            for unit in range(units):
                stride = 2 if unit == units - 1 and block < 3 else 1
                inner = self.conv(x, 1)
                inner = self.strided(inner, 3) if stride == 2 else self.conv(inner, 3)
                x = self.pool(x, 1, stride) + self.conv(inner, 1)
        return x

    def strided(self, x: jax.Array, size: int) -> jax.Array:
        """Convolves with stride 2 and equal padding on both sides, for any size of the image."""
        around = (size // 2, size // 2)
        return nn.relu(nn.Conv(1, (size, size), 2, (around, around), use_bias=False)(x))


class MobileNet(_Net):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x, 3, 2)
        for stride in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):
            x = self.conv(self.conv(x, 3, stride), 1)
        return x


class InceptionResNet(_Net):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(self.conv(x, 3, 2, "VALID"), 3, 1, "VALID")
        x = self.pool(self.conv(x, 3), 3, 2)
        x = self.pool(self.conv(self.conv(x, 1), 3, 1, "VALID"), 3, 2)
        mean = nn.avg_pool(x, (3, 3), (1, 1), "SAME")
        x = self.joined(
            x, [[(1, 1)], [(1, 1), (5, 1)], [(1, 1), (3, 1), (3, 1)]], self.conv(mean, 1)
        )
        x = self.residuals(x, 10, [[(1, 1)], [(1, 1), (3, 1)], [(1, 1), (3, 1), (3, 1)]])
        x = self.smaller(x, [[(3, 2)], [(1, 1), (3, 1), (3, 2)]])
        x = self.residuals(x, 20, [[(1, 1)], [(1, 1), ((1, 7), 1), ((7, 1), 1)]])
        x = self.smaller(x, [[(1, 1), (3, 2)], [(1, 1), (3, 1), (3, 2)]])
        x = self.residuals(x, 10, [[(1, 1)], [(1, 1), ((1, 3), 1), ((3, 1), 1)]])
        return self.conv(x, 1)

    def residuals(self, x: jax.Array, count: int, branches: Sequence[Branch]) -> jax.Array:
        for _ in range(count):
            x = x + self.conv(self.joined(x, branches, 0 * x), 1)
        return x

    def smaller(self, x: jax.Array, branches: Sequence[Branch]) -> jax.Array:
        return self.joined(x, branches, self.pool(x, 3, 2), "VALID")

    def joined(
        self, x: jax.Array, branches: Sequence[Branch], other: jax.Array, padding: str = "SAME"
    ) -> jax.Array:
        """Sums the branches, whose channels the published network concatenates."""
        for branch in branches:
            other = other + self.chain(x, branch, padding)
        return other


# With "SAME", the padding of a layer with a stride depends on the size of the image.
IMAGE = 224

NETWORKS: dict[str, tuple[Callable[[], nn.Module], PublishedField]] = {
    "AlexNet": (AlexNet, PublishedField(195, 32, 64)),
    "VGG-16": (VGG16, PublishedField(212, 32, 90)),
    "ResNet-50": (SlimResNet, PublishedField(483, 32, 239)),
    "ResNet-101": (partial(SlimResNet, (3, 4, 23, 3)), PublishedField(1027, 32, 511)),
    "ResNet-152": (partial(SlimResNet, (3, 8, 36, 3)), PublishedField(1507, 32, 751)),
    "MobileNet": (MobileNet, PublishedField(315, 32, 126)),
    "Inception-ResNet-v2": (InceptionResNet, PublishedField(3039, 32, 1482)),
}
