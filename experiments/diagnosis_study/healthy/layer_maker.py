"""The layers of the zoo's networks, which vary alike in all of them."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from experiments.diagnosis_study.healthy.initial_values import lecun_normal, normal, orthogonal

GROUPS = 4  # of group norm


@dataclass(frozen=True)
class Style:
    """What may look odd in a network and is no fault.

    Attributes:
      name: says what is odd; "" for nothing.
      zero_head: whether the last layer starts from weights of zero, so that all outputs are equal.
      dropout: share of the values that are dropped before the last layer.
      momentum: of the running statistics of batch norm; 0.99 is the default of Flax.
      bfloat16: whether the layers compute in that type; the parameters are float32.
      longer: factor on the number of steps; slow running statistics need more of them.
    """

    name: str = ""
    zero_head: bool = False
    dropout: float = 0.0
    momentum: float = 0.9
    bfloat16: bool = False
    longer: int = 1


class Head(nnx.Module):
    """The last layer, after dropout if the style has it."""

    def __init__(self, features: int, outputs: int, style: Style, *, rngs: nnx.Rngs):
        kernel: Any = nnx.initializers.zeros_init() if style.zero_head else lecun_normal
        self.dropout = nnx.Dropout(style.dropout, rngs=rngs) if style.dropout else None
        self.linear = nnx.Linear(features, outputs, kernel_init=kernel, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features (..., F) to outputs (..., K), in float32."""
        x = x.astype(jnp.float32)
        return self.linear(x if self.dropout is None else self.dropout(x))


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str, **_: Any
) -> jax.Array:
    """Returns what `jax.lax.conv_general_dilated` does for a depthwise convolution of small maps.

    On a CPU the gradient of that takes a second for 7×7 windows, that of these products some
    milliseconds.

    Args:
      x: maps (N, H, H, C).
      kernel: of (K, K, 1, C).
      strides: alike for height and width.
      padding: "SAME".
    """
    place = jnp.asarray(_places(x.shape[1], kernel.shape[0], strides[0]), kernel.dtype)
    matrices = jnp.einsum("yak,xbl,klc->abyxc", place, place, kernel[:, :, 0])
    return jnp.einsum("nabc,abyxc->nyxc", x, matrices)


def _places(side: int, size: int, stride: int) -> npt.NDArray[np.bool_]:
    """Returns whether a pixel is at a place of an output's window: (outputs, pixels, places)."""
    outputs = -(-side // stride)
    before = max((outputs - 1) * stride + size - side, 0) // 2
    output, pixel, place = np.ogrid[:outputs, :side, :size]
    return pixel == output * stride + place - before


@dataclass(frozen=True)
class LayerMaker:
    """Makes layers of a style.

    Attributes:
      style: of all layers.
      seed: of their initial parameters.
      rngs: of the seed.
    """

    style: Style
    seed: int
    rngs: nnx.Rngs = field(init=False)

    def __post_init__(self) -> None:
        # This kind of key compiles faster than the default.
        dropout = jax.random.key(self.seed, impl="rbg")
        object.__setattr__(self, "rngs", nnx.Rngs(self.seed, dropout=dropout))

    @property
    def _options(self) -> dict[str, Any]:
        return {"dtype": jnp.bfloat16 if self.style.bfloat16 else None, "rngs": self.rngs}

    @property
    def _weights(self) -> dict[str, Any]:
        return {"kernel_init": lecun_normal, **self._options}

    def linear(self, features: int, outputs: int) -> nnx.Linear:
        """Returns a fully connected layer."""
        return nnx.Linear(features, outputs, **self._weights)

    def conv(
        self,
        channels: int,
        outputs: int,
        size: int = 3,
        *,
        stride: int = 1,
        depthwise: bool = False,
    ) -> nnx.Conv:
        """Returns a convolution whose padding keeps the size, but for the stride."""
        window = (size, size)
        groups, options = 1, self._weights
        if depthwise:
            groups, options = channels, {"conv_general_dilated": depthwise_conv, **options}
        return nnx.Conv(
            channels, outputs, window, strides=stride, feature_group_count=groups, **options
        )

    def patches(self, outputs: int, side: int) -> nnx.Conv:
        """Returns the layer that maps each patch of side×side pixels to a vector."""
        window = (side, side)
        return nnx.Conv(1, outputs, window, strides=window, padding="VALID", **self._weights)

    def batch_norm(self, channels: int, *, zero: bool = False) -> nnx.BatchNorm:
        """Returns batch norm, which may start from a scale of zero."""
        scale: Any = nnx.initializers.zeros_init() if zero else nnx.initializers.ones_init()
        momentum = self.style.momentum
        return nnx.BatchNorm(channels, momentum=momentum, scale_init=scale, **self._options)

    def layer_norm(self, features: int) -> nnx.LayerNorm:
        """Returns layer norm."""
        return nnx.LayerNorm(features, **self._options)

    def norm(self, kind: str, channels: int) -> Any:
        """Returns a normalisation of "batch", "group" or "layer"; None for ""."""
        if kind == "batch":
            return self.batch_norm(channels)
        if kind == "group":
            return nnx.GroupNorm(channels, GROUPS, **self._options)
        return self.layer_norm(channels) if kind else None

    def attention(self, features: int, heads: int) -> nnx.MultiHeadAttention:
        """Returns attention of a sequence to itself."""
        return nnx.MultiHeadAttention(heads, features, decode=False, **self._weights)

    def recurrent(self, cell: Any, features: int, width: int) -> nnx.RNN:
        """Returns a recurrent layer with cells of a class."""
        made = cell(
            features,
            width,
            kernel_init=lecun_normal,
            recurrent_kernel_init=orthogonal,
            rngs=self.rngs,
        )
        return nnx.RNN(made, rngs=self.rngs)

    def embedding(self, kinds: int, width: int) -> nnx.Embed:
        """Returns a table with a vector for each token or position."""
        return nnx.Embed(kinds, width, embedding_init=normal(0.02), rngs=self.rngs)

    def values(self, *shape: int) -> nnx.Param:
        """Returns small parameters, such as a token's."""
        return nnx.Param(normal(0.02)(self.rngs.params(), shape))

    def head(self, features: int, outputs: int) -> Head:
        """Returns the last layer."""
        return Head(features, outputs, self.style, rngs=self.rngs)
