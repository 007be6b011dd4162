"""The chapter's networks, in every layout.

Images are passed as NHWC and transposed once, before the first layer.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Inexact, Num

from convjax._checks import check_flags, check_type, check_whole
from convjax._names import NORMS
from convjax.nn._relu import relu
from convjax.nn.layers import BatchNorm, Conv, GroupNorm, Linear, ReLU
from convjax.ops.layout import flatten, images_to, resolve_layout

# Channels per group of group norm. The paper uses 16 and more, in networks whose layers have 64
# channels and more; the chapter's first layer has 8.
GROUP_CHANNELS = 4


def norm_layer(
    norm: str, num_features: int, *, layout: str, dtype: Any, param_dtype: Any
) -> BatchNorm | GroupNorm:
    """Returns a normalisation layer by its name, one of NORMS.

    "group" has groups of 4 channels, or one group if 4 does not divide the channels.
    """
    settings = {"layout": layout, "dtype": dtype, "param_dtype": param_dtype}
    if norm == "batch":
        return BatchNorm(num_features, **settings)
    in_groups = 1 if num_features % GROUP_CHANNELS else num_features // GROUP_CHANNELS
    groups = {"layer": 1, "group": in_groups, "instance": num_features}
    return GroupNorm(num_features, groups[norm], **settings)


class ConvBlock(nnx.Module):
    """A convolution with optional normalisation and ReLU: maps to maps in one layout.

    The padding is kernel_size // 2, as in the chapter: an odd kernel with stride 2 halves the map.
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
        activate_first: bool,
        use_bias: bool = True,
        layout: str,
        method: str,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.layout = layout
        self.conv = Conv(
            in_features,
            out_features,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            use_bias=use_bias,
            layout=layout,
            method=method,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        settings = {"layout": layout, "dtype": dtype, "param_dtype": param_dtype}
        self.norm = nnx.data(None if norm is None else norm_layer(norm, out_features, **settings))
        follows_conv = norm is None or activate_first
        self.relu = nnx.data(ReLU(by_output=follows_conv) if activate else None)
        self.activate_first = activate_first

    def __call__(self, x: Num[Array | np.ndarray, "A B C D"]) -> Inexact[Array, "E F G H"]:
        """Maps images to maps, both in the block's layout."""
        x = self.conv(x)
        if self.relu is not None and self.activate_first:
            x = self.relu(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.relu(x) if self.relu is not None and not self.activate_first else x


class ConvNet(nnx.Module):
    """A chain of convolutions with ReLU after each but the last, flattened to logits.

    Args:
      channels: channels of the input and of each layer's output, such as (1, 8, 16, 32, 64, 10).
      kernel_sizes: pixels; one int for all layers or one per layer.
      stride: pixels; 2 halves the map at each layer.
      norm: None, or the normalisation after every convolution: "batch", "layer", "group" (of four
        channels) or "instance".
      norm_last: whether the last convolution has the normalisation, too, as the chapter's `conv`
        has it. Instance norm of a map of 1×1 pixels is its bias, whatever the image.
      activate_first: whether the ReLU comes before the normalisation.
      layout: "NHWC", "NCHW", "CHWN" or "auto" (CHWN on CPU, NHWC elsewhere).
      method: as for `convjax.conv2d`.
      dtype: of the computation, such as jnp.bfloat16; None for the widest of images and parameters.
      param_dtype: of the parameters; the running statistics of batch norm are at least float32.
      rngs: source of the initial parameters. A seed gives the same network in every layout.

    Raises:
      TypeError: if `rngs` is not `nnx.Rngs`, a number of channels not an integer, or norm_last or
        activate_first neither True nor False.
      ValueError: for fewer than two channels, kernel sizes that are not one per layer, or an
        unknown norm or layout.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> from flax import nnx
      >>> model = convjax.ConvNet((3, 8, 10), norm="batch", layout="NCHW", rngs=nnx.Rngs(0))
      >>> images = jnp.ones((2, 4, 4, 3))
      >>> model.features(images).shape, model(images).shape
      ((2, 10, 1, 1), (2, 10))
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        kernel_sizes: int | Sequence[int] = 3,
        stride: int = 2,
        norm: str | None = None,
        norm_last: bool = True,
        activate_first: bool = False,
        layout: str = "auto",
        method: str = "auto",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_type("rngs", rngs, nnx.Rngs, "nnx.Rngs(0) makes one from a seed.")
        check_flags(norm_last=norm_last, activate_first=activate_first)
        channels = [check_whole("channels", number, 1) for number in channels]
        layers = len(channels) - 1
        if layers < 1:
            raise ValueError(
                f"channels must be the input's channels and one number per layer or more, "
                f"got {tuple(channels)}."
            )
        sizes = (kernel_sizes,) * layers if isinstance(kernel_sizes, int) else tuple(kernel_sizes)
        if len(sizes) != layers:
            raise ValueError(
                f"kernel_sizes must be one int or one per layer ({layers}), got {kernel_sizes!r}."
            )
        if norm not in (None, *NORMS):
            raise ValueError(f"norm must be None or one of {', '.join(NORMS)}, got {norm!r}.")
        self.layout = resolve_layout(layout)
        self.blocks = nnx.List(
            [
                ConvBlock(
                    channels[i],
                    channels[i + 1],
                    sizes[i],
                    stride=stride,
                    norm=norm if i < layers - 1 or norm_last else None,
                    activate=i < layers - 1,
                    activate_first=activate_first,
                    layout=self.layout,
                    method=method,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                for i in range(layers)
            ]
        )

    def features(self, images: Num[Array | np.ndarray, "N H W C"]) -> Inexact[Array, "E F G I"]:
        """Maps images (N, H, W, C) to the maps of the last layer; axes as `layout` says."""
        x = images_to(images, self.layout)
        for block in self.blocks:
            x = block(x)
        return x

    def __call__(self, images: Num[Array | np.ndarray, "N H W C"]) -> Inexact[Array, "N features"]:
        """Maps images (N, H, W, C) to logits (N, features).

        A map larger than 1×1 is flattened in the order C, H, W, as in PyTorch.
        """
        return flatten(self.features(images), layout=self.layout)


class LinearNet(nnx.Module):
    """The chapter's fully connected network: 784 → 30 → 1 with a ReLU between the layers.

    Args:
      features: sizes of the input and of each layer's output.
      dtype: of the computation; None for the widest of images and parameters.
      param_dtype: of the parameters.
      rngs: source of the initial parameters.

    Raises:
      TypeError: if `rngs` is not `nnx.Rngs`, or a size is not an integer.
      ValueError: for fewer than two sizes, or one below 1.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> from flax import nnx
      >>> convjax.LinearNet((16, 8, 3), rngs=nnx.Rngs(0))(jnp.ones((2, 4, 4, 1))).shape
      (2, 3)
    """

    def __init__(
        self,
        features: Sequence[int] = (784, 30, 1),
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_type("rngs", rngs, nnx.Rngs, "nnx.Rngs(0) makes one from a seed.")
        if isinstance(features, str) or len(features) < 2:
            raise ValueError(
                f"features must be the sizes of the input and of one layer or more, got "
                f"{features!r}."
            )
        features = [check_whole("features", number, 1) for number in features]
        self.layers = nnx.List(
            [
                Linear(
                    features[i], features[i + 1], dtype=dtype, param_dtype=param_dtype, rngs=rngs
                )
                for i in range(len(features) - 1)
            ]
        )

    def __call__(self, images: Num[Array | np.ndarray, "N ..."]) -> Inexact[Array, "N features"]:
        """Maps images (N, H, W, C) to logits (N, features[-1])."""
        x = images.reshape(images.shape[0], -1)
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)


def digits_net(
    *, in_features: int = 1, classes: int = 10, first_kernel: int = 5, **settings: Any
) -> ConvNet:
    """Returns the chapter's network for ten digits: 28 → 14 → 7 → 4 → 2 → 1 pixels.

    The first kernel is 5×5, so that 8 filters read 25 pixels each; with 3×3 they would compute 8
    numbers from 9.

    Args:
      in_features: channels of the images.
      classes: number of logits.
      first_kernel: height and width of the first kernel in pixels.
      **settings: those of `ConvNet` except channels, kernel_sizes and stride; `rngs` is required.

    Raises:
      TypeError: as `ConvNet`.
      ValueError: as `ConvNet`.

    Examples:
      >>> import convjax, jax
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: convjax.digits_net(rngs=nnx.Rngs(0)))
      >>> [block.conv.bias.shape for block in model.blocks]
      [(8,), (16,), (32,), (64,), (10,)]
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      30282
    """
    channels = (in_features, 8, 16, 32, 64, classes)
    return ConvNet(channels, kernel_sizes=(first_kernel, 3, 3, 3, 3), **settings)


def threes_sevens_net(*, in_features: int = 1, classes: int = 2, **settings: Any) -> ConvNet:
    """Returns the chapter's first network, for threes and sevens: 6,722 parameters.

    Args:
      in_features: channels of the images.
      classes: number of logits.
      **settings: those of `ConvNet` except channels and stride; `rngs` is required.

    Raises:
      TypeError: as `ConvNet`.
      ValueError: as `ConvNet`.

    Examples:
      >>> import convjax, jax
      >>> from flax import nnx
      >>> model = nnx.eval_shape(lambda: convjax.threes_sevens_net(rngs=nnx.Rngs(0)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
      6722
    """
    return ConvNet((in_features, 4, 8, 16, 32, classes), **settings)


def broken_net(**settings: Any) -> ConvNet:
    """Returns the chapter's broken network: with stride 1, its output is a 28×28 map per image.

    Args:
      **settings: those of `ConvNet` except channels and stride; `rngs` is required.

    Raises:
      TypeError: as `ConvNet`.
      ValueError: as `ConvNet`.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> from flax import nnx
      >>> convjax.broken_net(rngs=nnx.Rngs(0))(jnp.ones((2, 28, 28, 1))).shape  # 28·28, not 2
      (2, 784)
    """
    return ConvNet((1, 30, 1), stride=1, **settings)
