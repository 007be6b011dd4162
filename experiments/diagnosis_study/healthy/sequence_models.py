"""Networks of the zoo for sequences: of patches, of the rows of an image, and of tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.diagnosis_study.healthy.initial_values import lecun_normal
from experiments.diagnosis_study.healthy.layer_maker import LayerMaker

PATCH, PATCHES = 7, 16  # pixels of a side, and number of patches in 28×28 pixels
LENGTH = 24  # of a sequence of tokens


class Perceptron(nnx.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int, make: LayerMaker):
        self.expand, self.project = make.linear(width, hidden), make.linear(hidden, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps vectors (..., D) to vectors (..., D)."""
        return self.project(nnx.gelu(self.expand(x)))


class TransformerBlock(nnx.Module):
    """Attention and two linear layers, each after layer norm and with a shortcut."""

    def __init__(self, width: int, make: LayerMaker):
        self.norm1, self.attention = make.layer_norm(width), make.attention(width, 4)
        self.norm2, self.perceptron = make.layer_norm(width), Perceptron(width, 2 * width, make)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps sequences (N, T, D) to sequences."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.perceptron(self.norm2(x))


class VisionTransformer(nnx.Module):
    """Attention over patches; the outputs are those of a further token."""

    def __init__(self, outputs: int, make: LayerMaker, *, width: int = 32):
        self.patches = make.patches(width, PATCH)
        self.class_token = make.values(1, 1, width)
        self.positions = make.values(1, PATCHES + 1, width)
        self.blocks = nnx.List([TransformerBlock(width, make) for _ in range(2)])
        self.norm = make.layer_norm(width)
        self.head = make.head(width, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        x = self.patches(images)
        x = x.reshape(len(x), PATCHES, -1)
        first = jnp.broadcast_to(self.class_token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([first.astype(x.dtype), x], 1) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class MixerBlock(nnx.Module):
    """Linear layers along the patches, then along the channels."""

    def __init__(self, width: int, make: LayerMaker):
        self.norm1, self.patches = make.layer_norm(width), Perceptron(PATCHES, 32, make)
        self.norm2, self.channels = make.layer_norm(width), Perceptron(width, 2 * width, make)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps sequences (N, T, D) to sequences."""
        mixed = self.patches(self.norm1(x).swapaxes(1, 2))
        x = x + mixed.swapaxes(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nnx.Module):
    """An MLP-Mixer over patches."""

    def __init__(self, outputs: int, make: LayerMaker, *, width: int = 32):
        self.patches = make.patches(width, PATCH)
        self.blocks = nnx.List([MixerBlock(width, make) for _ in range(2)])
        self.norm = make.layer_norm(width)
        self.head = make.head(width, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        x = self.patches(images)
        x = x.reshape(len(x), PATCHES, -1)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(self.norm(x), 1))


class RowReader(nnx.Module):
    """A recurrent network that reads an image row by row."""

    def __init__(self, outputs: int, make: LayerMaker, *, cell: Any, width: int = 64):
        self.rnn = make.recurrent(cell, 28, width)
        self.head = make.head(width, outputs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to outputs (N, K)."""
        return self.head(self.rnn(images[..., 0])[:, -1])


class GPT(nnx.Module):
    """Attention of each token to those before it."""

    def __init__(self, outputs: int, make: LayerMaker, *, width: int = 32):
        self.tokens = make.embedding(outputs, width)
        self.positions = make.embedding(LENGTH, width)
        self.blocks = nnx.List([TransformerBlock(width, make) for _ in range(2)])
        self.norm = make.layer_norm(width)
        self.head = make.head(width, outputs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens (N, T) to logits of the next ones (N, T, K)."""
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


class TokenReader(nnx.Module):
    """A recurrent network over tokens."""

    def __init__(self, outputs: int, make: LayerMaker, *, cell: Any, width: int = 64):
        self.tokens = make.embedding(outputs, 32)
        self.rnn = make.recurrent(cell, 32, width)
        self.head = make.head(width, outputs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens (N, T) to logits of the next ones (N, T, K)."""
        return self.head(self.rnn(self.tokens(tokens)))


class CausalConvolutions(nnx.Module):
    """Convolutions over the tokens before, with shortcuts."""

    def __init__(self, outputs: int, make: LayerMaker, *, width: int = 32):
        def conv(dilation: int) -> nnx.Conv:
            return nnx.Conv(
                width,
                width,
                (3,),
                kernel_dilation=dilation,
                padding="CAUSAL",
                kernel_init=lecun_normal,
                rngs=make.rngs,
            )

        self.tokens = make.embedding(outputs, width)
        self.convs = nnx.List([conv(dilation) for dilation in (1, 2, 4)])
        self.head = make.head(width, outputs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens (N, T) to logits of the next ones (N, T, K)."""
        x = self.tokens(tokens)
        for conv in self.convs:
            x = x + nnx.relu(conv(x))
        return self.head(x)
