"""Networks of the zoo with an output for each pixel."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.diagnosis_study.healthy.convolutional_nets import ConvNorm
from experiments.diagnosis_study.healthy.initial_values import lecun_normal
from experiments.diagnosis_study.healthy.layer_maker import LayerMaker

SIDE = 16  # of the small images whose pixels have outputs


def doubled(x: jax.Array) -> jax.Array:
    """Returns maps (N, H, W, C) of twice the height and width."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


class UNet(nnx.Module):
    """Down to 4×4 and up again, each size joined with the maps of the way down."""

    def __init__(self, outputs: int, make: LayerMaker, *, norm: str = "batch"):
        self.down1 = ConvNorm(1, 8, make, norm=norm)
        self.down2 = ConvNorm(8, 16, make, stride=2, norm=norm)
        self.bottom = ConvNorm(16, 32, make, stride=2, norm=norm)
        self.up2 = ConvNorm(32 + 16, 16, make, norm=norm)
        self.up1 = ConvNorm(16 + 8, 8, make, norm=norm)
        self.head = make.head(8, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 16, 16, 1) to outputs (N, 16, 16, K)."""
        large = self.down1(images)
        middle = self.down2(large)
        x = doubled(self.bottom(middle))
        x = self.up2(jnp.concatenate([x, middle], -1))
        x = self.up1(jnp.concatenate([doubled(x), large], -1))
        return self.head(x)


class FullyConvolutional(nnx.Module):
    """Convolutions at the full size."""

    def __init__(self, outputs: int, make: LayerMaker):
        widths = (1, 8, 8, 16)
        self.blocks = nnx.List([ConvNorm(i, o, make, norm="") for i, o in pairwise(widths)])
        self.head = make.head(widths[-1], outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 16, 16, 1) to outputs (N, 16, 16, K)."""
        x = images
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Autoencoder(nnx.Module):
    """Fully connected layers with a bottleneck."""

    def __init__(self, outputs: int, make: LayerMaker):
        widths = (SIDE**2, 128, 32, 128)
        self.layers = nnx.List([make.linear(i, o) for i, o in pairwise(widths)])
        self.head = make.head(128, SIDE**2 * outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 16, 16, 1) to outputs (N, 16, 16, K)."""
        x = images.reshape(len(images), -1)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x).reshape(*images.shape[:3], -1)


class ConvAutoencoder(nnx.Module):
    """GELU after convolutions of stride 2 down to 4×4, transposed convolutions up again."""

    def __init__(self, outputs: int, make: LayerMaker):
        self.encoder = nnx.List(
            [
                ConvNorm(i, o, make, stride=2, norm="", function=nnx.gelu)
                for i, o in pairwise((1, 16, 8))
            ]
        )
        self.decoder = nnx.List(
            [
                nnx.ConvTranspose(i, o, (3, 3), (2, 2), kernel_init=lecun_normal, rngs=make.rngs)
                for i, o in pairwise((8, 16, 8))
            ]
        )
        self.head = make.head(8, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 16, 16, 1) to outputs (N, 16, 16, K)."""
        x = images
        for block in self.encoder:
            x = block(x)
        for layer in self.decoder:
            x = nnx.gelu(layer(x))
        return self.head(x)
