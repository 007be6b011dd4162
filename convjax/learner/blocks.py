"""The chapter's `conv` and `sequential`: blocks of a network in one line each."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Inexact, Num

from convjax._checks import check_flags, check_whole
from convjax._names import NORMS
from convjax.nn.layers import ReLU
from convjax.nn.models import ConvBlock, ConvNet
from convjax.nn.pooling import AvgPool, Flatten, GlobalAvgPool, MaxPool
from convjax.nn.residual import ResNet
from convjax.ops.layout import Layout, check_layout, images_to, resolve_layout

_rngs: nnx.Rngs | None = None

_WITHOUT_PARAMETERS = (AvgPool, Flatten, GlobalAvgPool, MaxPool)


def set_seed(seed: int) -> None:
    """Sets the seed of the networks that `conv` makes from here on; it is 0 at the start.

    Examples:
      >>> import convjax
      >>> convjax.set_seed(42)
      >>> first = convjax.conv(1, 4)
      >>> convjax.set_seed(42)
      >>> bool((convjax.conv(1, 4).conv.kernel[...] == first.conv.kernel[...]).all())
      True
    """
    global _rngs
    _rngs = nnx.Rngs(check_whole("seed", seed, 0))


def default_rngs() -> nnx.Rngs:
    """Returns the source of the parameters that are drawn without one of one's own."""
    if _rngs is None:
        set_seed(0)
    assert _rngs is not None
    return _rngs


def conv(
    ni: int,
    nf: int,
    ks: int = 3,
    act: bool = True,
    norm: str | None = None,
    *,
    stride: int = 2,
    layout: str = "auto",
    dtype: Any = None,
    rngs: nnx.Rngs | None = None,
) -> ConvBlock:
    """Returns the chapter's block: a convolution that halves the image, a norm, a ReLU.

    Args:
      ni, nf: channels in and out.
      ks: height and width of the kernel, pixels; the padding is ks // 2.
      act: whether a ReLU comes last.
      norm: None, or "batch", "layer", "group" or "instance".
      stride: pixels between neighbouring outputs.
      layout: of the maps inside; "auto" is CHWN on CPU, NHWC elsewhere.
      dtype: of the computation; None for the widest of images and parameters.
      rngs: source of the parameters; by default that of `set_seed`.

    Raises:
      TypeError: if `act` is neither True nor False.
      ValueError: for an unknown norm or layout, or a number below 1.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> net = convjax.sequential(
      ...     convjax.conv(1, 4), convjax.conv(4, 8), convjax.conv(8, 2, act=False),
      ...     convjax.nn.Flatten(),
      ... )
      >>> net(jnp.ones((64, 8, 8, 1))).shape
      (64, 2)
    """
    check_flags(
        " For another activation than ReLU put it after the block: "
        "convjax.sequential(convjax.conv(1, 8, act=False), jax.nn.tanh).",
        act=act,
    )
    if norm is not None and norm not in NORMS:
        raise ValueError(f"norm must be None or one of {', '.join(NORMS)}, got {norm!r}.")
    return ConvBlock(
        ni,
        nf,
        ks,
        stride=stride,
        norm=norm,
        activate=act,
        activate_first=False,
        layout=resolve_layout(layout),
        method="auto",
        dtype=dtype,
        param_dtype=jnp.float32,
        rngs=default_rngs() if rngs is None else rngs,
    )


def _has_layout(layer: Any) -> bool:
    """Returns whether a layer maps maps of its layout to maps of its layout."""
    return hasattr(layer, "layout") and not isinstance(layer, ConvNet | ResNet | Sequential)


class Sequential(nnx.Module):
    """Layers one after the other, from images (N, H, W, C).

    Args:
      layers: modules and functions. Convolutions and norms of convjax have one layout; pooling and
        flattening layers take it over, and need not be told. All others, such as functions, modules
        of Flax and whole networks, get and return maps as (N, H, W, C).
      axes: order of the axes of maps that are returned, "NHWC", "NCHW" or "CHWN".

    Raises:
      TypeError: if a layer cannot be called.
      ValueError: if layers have different layouts.
    """

    def __init__(self, layers: Sequence[Callable[..., Any]], *, axes: str = "NHWC"):
        for i, layer in enumerate(layers):
            if isinstance(layer, type) or not callable(layer):
                raise TypeError(
                    f"layers must be modules or functions, got {layer!r} at {i}. Make an instance."
                )
        found = dict.fromkeys(
            getattr(layer, "layout")  # noqa: B009
            for layer in layers
            if _has_layout(layer) and not isinstance(layer, _WITHOUT_PARAMETERS)
        )
        if len(found) > 1:
            raise ValueError(
                f"layers must have one layout, got {', '.join(map(str, found))}. Pass the same "
                "layout to each."
            )
        self.layout: Layout = check_layout(next(iter(found), "NHWC"))
        self.layers = nnx.List([self._in_layout(layer) for layer in layers])
        self.axes = check_layout(axes)

    def _in_layout(self, layer: Any) -> Any:
        if isinstance(layer, _WITHOUT_PARAMETERS) and layer.layout != self.layout:
            layer = nnx.clone(layer)
            layer.layout = self.layout
        return layer

    def __call__(self, images: Num[Array | np.ndarray, "N ..."]) -> Inexact[Array, "..."]:
        """Maps images (N, H, W, C) to what the last layer returns; maps have the order `axes`."""
        x: Any = images
        order = "NHWC"
        for layer in self.layers:
            wanted = order if isinstance(layer, ReLU) else "NHWC"
            wanted = self.layout if _has_layout(layer) else wanted
            if x.ndim == 4 and wanted != order:
                x, order = images_to(x, wanted, source=order), wanted
            x = layer(x)
            if isinstance(layer, Sequential):
                order = layer.axes
        return images_to(x, self.axes, source=order) if x.ndim == 4 else x


def sequential(*layers: Callable[..., Any], axes: str = "NHWC") -> Sequential:
    """Returns layers one after the other, see `Sequential`; blocks of `conv` and functions.

    Examples:
      The chapter's broken network, whose output is a map:

      >>> import convjax, jax.numpy as jnp
      >>> from convjax.nn import Conv
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> broken_net = convjax.sequential(
      ...     Conv(1, 30, 3, padding=1, rngs=rngs), nnx.relu, Conv(30, 1, 3, padding=1, rngs=rngs),
      ...     axes="NCHW",
      ... )
      >>> broken_net(jnp.ones((64, 28, 28, 1))).shape
      (64, 1, 28, 28)
    """
    return Sequential(layers, axes=axes)
