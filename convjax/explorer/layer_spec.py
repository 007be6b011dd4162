"""The layers of the explorer's page, and their extraction from a network.

Maps have the axes (channels, height, width).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from flax import nnx
from jaxtyping import Float64

from convjax.analysis._precedents import Windows
from convjax.nn.layers import BatchNorm
from convjax.nn.models import ConvNet
from convjax.ops.geometry import Pair
from convjax.ops.layout import permutation


class ReluSpec(NamedTuple):
    """max(0, x)."""


class AffineSpec(NamedTuple):
    """x·scale + shift with one number per channel, such as batch norm in evaluation mode.

    Attributes:
      scale: shape (O,).
      shift: shape (O,).
      name: of the step on the page.
    """

    scale: npt.ArrayLike
    shift: npt.ArrayLike
    name: str = "batch norm"


PostOp = ReluSpec | AffineSpec


class ConvolutionSpec(NamedTuple):
    """A convolution and the steps that follow it.

    Attributes:
      name: of the layer on the page.
      kernel: shape (O, I, height, width).
      bias: shape (O,), or None.
      stride: as of `convjax.conv2d`.
      padding: as of `convjax.conv2d`.
      dilation: as of `convjax.conv2d`.
      steps: applied to the sum in this order.
      channels: names of the output channels; empty to number them.
    """

    name: str
    kernel: npt.ArrayLike
    bias: npt.ArrayLike | None = None
    stride: int | Pair = 1
    padding: Any = 0
    dilation: int | Pair = 1
    steps: Sequence[PostOp] = ()
    channels: Sequence[str] = ()


class MaxPoolSpec(NamedTuple):
    """Max pooling: the largest cell of each window, without those of the padding.

    Attributes:
      name: of the layer on the page.
      windows: size, stride, padding and dilation.
    """

    name: str
    windows: Windows


class DenseSpec(NamedTuple):
    """A dense layer, whose units depend on the whole map.

    Attributes:
      name: of the layer on the page.
      weights: shape (O, channels, height, width), with the axes of the map.
      bias: shape (O,), or None.
      steps: applied to the sum in this order.
    """

    name: str
    weights: npt.ArrayLike
    bias: npt.ArrayLike | None = None
    steps: Sequence[PostOp] = ()


LayerSpec = ConvolutionSpec | MaxPoolSpec | DenseSpec


def layer_specs(model: nnx.Module) -> list[LayerSpec]:
    """Returns a network's layers for the page, with batch norm in evaluation mode.

    Args:
      model: a chain of convolutions.

    Raises:
      TypeError: if the network is not a `ConvNet`, or has shapes instead of numbers, as after
        `nnx.eval_shape`.
      ValueError: if the network has layer, group or instance norm, whose factors depend on the
        image, or a convolution with groups of channels.

    Examples:
      >>> from flax import nnx
      >>> from convjax import ConvNet, explorer
      >>> model = ConvNet((1, 2), rngs=nnx.Rngs(0))
      >>> [(layer.name, layer.kernel.shape) for layer in explorer.layer_specs(model)]
      [('conv 1', (2, 1, 3, 3))]
    """
    if not isinstance(model, ConvNet):
        raise TypeError(
            f"model must be a chain of convolutions (ConvNet), got {type(model).__name__}. "
            "convjax.digits_net makes one."
        )
    layers: list[LayerSpec] = []
    for i, block in enumerate(model.blocks):
        conv, norm = block.conv, block.norm
        if norm is not None and not isinstance(norm, BatchNorm):
            raise ValueError(
                f"model must have no norm but batch norm, got layer, group or instance norm in "
                f"blocks.{i}, whose factors depend on the image. Use a network with batch norm or "
                "without norm."
            )
        if conv.groups != 1:
            raise ValueError(
                f"model must have no groups of channels, got groups={conv.groups} in blocks.{i}. "
                "Use a network without groups."
            )
        norms: list[PostOp] = [] if norm is None else [_folded(norm)]
        relus: list[PostOp] = [ReluSpec()] if block.relu is not None else []
        layers.append(
            ConvolutionSpec(
                f"conv {i + 1}",
                _float64(conv.kernel).transpose(permutation("HWIO", "OIHW")),
                None if conv.bias is None else _float64(conv.bias),
                conv.stride,
                conv.padding,
                conv.dilation,
                [*relus, *norms] if block.activate_first else [*norms, *relus],
            )
        )
    return layers


def _folded(norm: BatchNorm) -> AffineSpec:
    """Returns (x − mean)/√(var + ε)·γ + β as x·scale + shift."""
    scale = _float64(norm.scale) / np.sqrt(_float64(norm.var) + norm.epsilon)
    return AffineSpec(scale, _float64(norm.bias) - _float64(norm.mean) * scale)


def _float64(variable: nnx.Variable) -> Float64[np.ndarray, "..."]:
    value = variable.get_value()
    if isinstance(value, jax.ShapeDtypeStruct):
        raise TypeError(
            f"model must hold numbers, got a {type(variable).__name__} with only a shape, "
            f"{value.shape}, as after nnx.eval_shape. Load its weights "
            "(convjax.weights.load_weights), or build it without nnx.eval_shape."
        )
    return np.asarray(value, np.float64)
