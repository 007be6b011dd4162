"""The networks of the study: chapter CNNs, MLPs, residual CNNs and a Linen model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from convjax.nn.layers import BatchNorm, Conv, Linear
from convjax.nn.models import digits_net
from convjax.ops.layout import images_to, resolve_layout

CLASSES = 10
NONLINEARITIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nnx.relu,
    "tanh": nnx.tanh,
    "sigmoid": nnx.sigmoid,
}


class MLP(nnx.Module):
    """Fully connected layers, each but the last followed by a non-linearity."""

    def __init__(self, features: Sequence[int], nonlinearity: str, *, rngs: nnx.Rngs):
        self.layers = nnx.List([Linear(i, o, rngs=rngs) for i, o in pairwise(features)])
        self.nonlinearity = nonlinearity

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to logits (N, classes)."""
        x = images.reshape(len(images), -1)
        for layer in self.layers[:-1]:
            x = NONLINEARITIES[self.nonlinearity](layer(x))
        return self.layers[-1](x)


class ResidualBlock(nnx.Module):
    """x + norm(conv(relu(norm(conv(x))))), then ReLU; maps to maps of the same shape."""

    def __init__(self, features: int, layout: str, *, rngs: nnx.Rngs):
        def conv() -> Conv:
            return Conv(features, features, 3, padding=1, layout=layout, rngs=rngs)

        self.conv1, self.norm1 = conv(), BatchNorm(features, layout=layout)
        self.conv2, self.norm2 = conv(), BatchNorm(features, layout=layout)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to maps in the block's layout."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(x + self.norm2(self.conv2(y)))


class ResidualNet(nnx.Module):
    """A strided convolution, residual blocks, the mean over the map, and a linear layer."""

    def __init__(self, blocks: int, *, features: int = 16, rngs: nnx.Rngs):
        self.layout = resolve_layout("auto")
        self.stem = Conv(1, features, 5, stride=4, padding=2, layout=self.layout, rngs=rngs)
        self.blocks = nnx.List(
            [ResidualBlock(features, self.layout, rngs=rngs) for _ in range(blocks)]
        )
        self.head = Linear(features, CLASSES, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to logits (N, classes)."""
        x = nnx.relu(self.stem(images_to(images, self.layout)))
        for block in self.blocks:
            x = block(x)
        positions = tuple(self.layout.index(letter) for letter in "HW")
        x = jnp.mean(x, axis=positions)
        return self.head(x.T if self.layout == "CHWN" else x)


class LinenNet(linen.Module):
    """A small CNN, written as usual in Flax Linen."""

    @linen.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to logits (N, classes)."""
        x = images
        for i, features in enumerate((8, 16, 32)):
            x = linen.relu(linen.Conv(features, (3, 3), strides=2, name=f"conv{i}")(x))
        x = linen.relu(linen.Dense(64, name="dense")(x.reshape(len(x), -1)))
        return linen.Dense(CLASSES, name="head")(x)


@dataclass(frozen=True)
class Architecture:
    """A network and the rates at which it trains.

    Attributes:
      build: returns the network with the initial parameters of a seed.
      adam: healthy learning rate for Adam.
      sgd: healthy learning rate for SGD with a momentum of 0.9.
      hidden: path of the bias that the fault "sleeping layer" changes.
      nonlinearity: as for `convjax.diagnose`.
      normed: whether it has normalisation layers.
      batch_norm: whether these keep running statistics.
      new: whether it was not used for setting thresholds.
    """

    build: Callable[[int], Any]
    adam: float
    sgd: float
    hidden: str
    nonlinearity: str = "relu"
    normed: bool = False
    batch_norm: bool = False
    new: bool = False


def chapter(norm: str | None = None) -> Callable[[int], nnx.Module]:
    """Returns a function that builds the chapter's network for ten digits."""
    return lambda seed: digits_net(norm=norm, rngs=nnx.Rngs(seed))


def mlp(features: Sequence[int], nonlinearity: str) -> Callable[[int], nnx.Module]:
    """Returns a function that builds fully connected layers from 28×28 pixels."""
    sizes = (28 * 28, *features, CLASSES)
    return lambda seed: MLP(sizes, nonlinearity, rngs=nnx.Rngs(seed))


def residual(blocks: int) -> Callable[[int], nnx.Module]:
    """Returns a function that builds a residual CNN."""
    return lambda seed: ResidualNet(blocks, rngs=nnx.Rngs(seed))


_NORM = "blocks.1.norm.bias"

ARCHITECTURES: dict[str, Architecture] = {
    "cnn": Architecture(chapter(), 3e-3, 0.05, "blocks.1.conv.bias"),
    "cnn-batch": Architecture(chapter("batch"), 1e-2, 0.1, _NORM, normed=True, batch_norm=True),
    "mlp": Architecture(mlp((64, 64), "relu"), 3e-3, 0.05, "layers.1.bias"),
    "tanh": Architecture(mlp((64, 64), "tanh"), 3e-3, 0.05, "", "tanh"),
    "residual": Architecture(
        residual(2), 1e-2, 0.1, "blocks.1.norm1.bias", normed=True, batch_norm=True, new=True
    ),
    "deep-residual": Architecture(
        residual(5), 1e-2, 0.1, "blocks.3.norm1.bias", normed=True, batch_norm=True, new=True
    ),
    "cnn-layer": Architecture(chapter("layer"), 1e-2, 0.1, _NORM, normed=True, new=True),
    "cnn-group": Architecture(chapter("group"), 1e-2, 0.1, _NORM, normed=True, new=True),
    # The fault "deep sigmoids": its gradients vanish.
    "sigmoid": Architecture(mlp((64,) * 6, "sigmoid"), 3e-3, 0.05, "", "sigmoid"),
    "linen": Architecture(lambda seed: LinenNet(), 3e-3, 0.05, "dense.bias", new=True),
}
