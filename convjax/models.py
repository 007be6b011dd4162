"""The chapter's networks, in every layout. Images enter as NHWC and are ordered once."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convjax.layers import BatchNorm, Conv, Linear
from convjax.layout import images_to, permutation, resolve_layout


class ConvBlock(nnx.Module):
    """Convolution, then batch norm and ReLU where asked: maps to maps in one layout.

    The padding is ks // 2, as in the chapter, so that an odd kernel with stride 2 halves the map.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int,
        norm: str | None,
        activate: bool,
        layout: str,
        method: str,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_features,
            out_features,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            layout=layout,
            method=method,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = nnx.data(
            BatchNorm(out_features, layout=layout, param_dtype=param_dtype)
            if norm == "batch"
            else None
        )
        self.activate = activate

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to maps, both in the block's layout."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return nnx.relu(x) if self.activate else x


class ConvNet(nnx.Module):
    """A chain of convolutions, each but the last followed by ReLU, then flattened to logits.

    Args:
      channels: channels of the input and of each layer's output: (1, 8, 16, 32, 64, 10).
      kernel_sizes: pixels, one int for all layers or one per layer.
      stride: pixels; 2 halves the map at each layer.
      norm: None, or "batch" for batch norm after every convolution, the last one included (as
        the chapter's `conv` has it).
      layout: "NHWC", "NCHW", "CHWN" or "auto" (CHWN on CPU, NHWC elsewhere).
      method: as for `convjax.conv2d`.
      rngs: source of the random parameters.

    Raises:
      ValueError: for fewer than two channels, a number of kernel sizes that does not fit, or an
        unknown norm.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        kernel_sizes: int | Sequence[int] = 3,
        stride: int = 2,
        norm: str | None = None,
        layout: str = "auto",
        method: str = "auto",
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        layers = len(channels) - 1
        if layers < 1:
            raise ValueError(
                f"channels must name the input's channels and one number per layer, "
                f"got {tuple(channels)}."
            )
        sizes = (kernel_sizes,) * layers if isinstance(kernel_sizes, int) else tuple(kernel_sizes)
        if len(sizes) != layers:
            raise ValueError(
                f"kernel_sizes must be one int or one per layer ({layers}), got {kernel_sizes!r}."
            )
        if norm not in (None, "batch"):
            raise ValueError(f'norm must be None or "batch", got {norm!r}.')
        self.layout = resolve_layout(layout)
        self.blocks = nnx.List(
            [
                ConvBlock(
                    channels[i],
                    channels[i + 1],
                    sizes[i],
                    stride=stride,
                    norm=norm,
                    activate=i < layers - 1,
                    layout=self.layout,
                    method=method,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                for i in range(layers)
            ]
        )

    def features(self, images: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to the last layer's maps, with axes as `layout` says."""
        x = images_to(images, self.layout)
        for block in self.blocks:
            x = block(x)
        return x

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to logits (N, features); a map larger than 1×1 is flattened
        in the order C, H, W, as PyTorch does."""
        x = jnp.transpose(self.features(images), permutation(self.layout, "NCHW"))
        return x.reshape(x.shape[0], -1)


class LinearNet(nnx.Module):
    """The fully connected network before convolutions: 784 → 30 → 1 with a ReLU between.

    Args:
      features: sizes of the input and of each layer's output.
      rngs: source of the random parameters.
    """

    def __init__(
        self,
        features: Sequence[int] = (784, 30, 1),
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List(
            [
                Linear(features[i], features[i + 1], param_dtype=param_dtype, rngs=rngs)
                for i in range(len(features) - 1)
            ]
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to logits (N, features[-1])."""
        x = images.reshape(images.shape[0], -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


def digits_net(*, in_features: int = 1, classes: int = 10, **settings: Any) -> ConvNet:
    """Builds the chapter's network for ten digits: 28 → 14 → 7 → 4 → 2 → 1 pixels.

    The first kernel is 5×5 so that 8 filters read 25 pixels each; with 3×3 they would make 8
    numbers of 9.

    Args:
      in_features: channels of the images.
      classes: number of logits.
      **settings: norm, layout, method, param_dtype and rngs of `ConvNet`.
    """
    channels = (in_features, 8, 16, 32, 64, classes)
    return ConvNet(channels, kernel_sizes=(5, 3, 3, 3, 3), **settings)


def threes_sevens_net(*, in_features: int = 1, classes: int = 2, **settings: Any) -> ConvNet:
    """Builds the chapter's first network, for threes and sevens: 6,722 parameters.

    Arguments as for `digits_net`.
    """
    return ConvNet((in_features, 4, 8, 16, 32, classes), **settings)


def broken_net(**settings: Any) -> ConvNet:
    """Builds the chapter's broken network: stride 1, so that its features are a 28×28 map.

    Arguments: those of `ConvNet` but channels and stride.
    """
    return ConvNet((1, 30, 1), stride=1, **settings)
