"""The kinds of layer that the explorer's page shows, and a network's layers as such.

Maps are (channels, height, width) here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax.analysis._precedents import Windows
from convjax.nn.layers import BatchNorm
from convjax.nn.models import ConvNet
from convjax.ops.geometry import Pair
from convjax.ops.layout import KERNEL_AXES, permutation


class ReluSpec(NamedTuple):
    """max(0, x)."""


class AffineSpec(NamedTuple):
    """x·scale + shift with one number per channel, such as batch norm in evaluation.

    Attributes:
      scale, shift: shape (O,).
      name: as the page calls it.
    """

    scale: npt.ArrayLike
    shift: npt.ArrayLike
    name: str = "batch norm"


PostOp = ReluSpec | AffineSpec


class ConvolutionSpec(NamedTuple):
    """A convolution and what is done to each of its outputs.

    Attributes:
      name: as the page calls the layer.
      kernel: shape (O, I, height, width).
      bias: shape (O,), or None.
      stride, padding, dilation: as `convjax.conv2d` takes them.
      steps: applied to the sum in this order.
      channels: what the page calls each output channel, or nothing for numbers.
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
    """The largest cell of each window; cells on the padding do not take part."""

    name: str
    windows: Windows


class DenseSpec(NamedTuple):
    """Units that see the whole map.

    Attributes:
      name: as the page calls the layer.
      weights: shape (O, channels, height, width), those of the map.
      bias: shape (O,), or None.
      steps: applied to the sum in this order.
    """

    name: str
    weights: npt.ArrayLike
    bias: npt.ArrayLike | None = None
    steps: Sequence[PostOp] = ()


LayerSpec = ConvolutionSpec | MaxPoolSpec | DenseSpec


def layer_specs(model: nnx.Module) -> list[LayerSpec]:
    """Returns a network's layers for the page, with batch norm as in evaluation.

    Raises:
      TypeError: if the network is not a `ConvNet`, or has shapes in place of numbers, as
        `nnx.eval_shape` leaves it.
      ValueError: if a layer's output is not a sum of products with constants per channel: layer,
        group and instance norm divide by what they find in each image; or has groups of channels.
    """
    if not isinstance(model, ConvNet):
        raise TypeError(
            f"model must be a chain of convolutions (ConvNet), got {type(model).__name__}."
        )
    layers: list[LayerSpec] = []
    for i, block in enumerate(model.blocks):
        conv, norm = block.conv, block.norm
        if norm is not None and not isinstance(norm, BatchNorm):
            raise ValueError(
                f"model must have no norm but batch norm, got layer, group or instance norm in "
                f"blocks.{i}: it divides by the spread of each image, so that its output is no "
                "sum of products with fixed weights. Choose a network with batch norm or none."
            )
        if conv.groups != 1:
            raise ValueError(
                f"model must have no groups of channels, got groups={conv.groups} in blocks.{i}."
            )
        norms: list[PostOp] = [] if norm is None else [_folded(norm)]
        relus: list[PostOp] = [ReluSpec()] if block.activate else []
        layers.append(
            ConvolutionSpec(
                f"conv {i + 1}",
                _float64(conv.kernel).transpose(permutation(KERNEL_AXES[conv.layout], "OIHW")),
                None if conv.bias is None else _float64(conv.bias),
                conv.stride,
                conv.padding,
                conv.dilation,
                [*relus, *norms] if block.activate_first else [*norms, *relus],
            )
        )
    return layers


def _folded(norm: BatchNorm) -> AffineSpec:
    """(x − mean)/√(var + ε)·γ + β as x·scale + shift."""
    scale = _float64(norm.scale) / np.sqrt(_float64(norm.var) + norm.epsilon)
    return AffineSpec(scale, _float64(norm.bias) - _float64(norm.mean) * scale)


def _float64(variable: nnx.Variable) -> npt.NDArray[np.float64]:
    value = variable.get_value()
    if isinstance(value, jax.ShapeDtypeStruct):
        raise TypeError(
            f"model must hold numbers, got a {type(variable).__name__} with nothing but its shape, "
            f"{value.shape}, as nnx.eval_shape makes it. Load its weights "
            "(convjax.nn.weights.load_weights), or build it without nnx.eval_shape."
        )
    return np.asarray(value, np.float64)
