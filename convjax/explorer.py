"""A page in which a network's convolutions are traced back, cell by cell, and changed.

The page holds the image and the weights and computes every map itself, in float64. Maps and images
are (channels, height, width) here.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax import geometry, pages
from convjax.geometry import Pair
from convjax.layers import BatchNorm
from convjax.layout import KERNEL_AXES, permutation
from convjax.models import ConvNet
from convjax.precedents import Windows, output_shape, precedents

Array = npt.NDArray[np.float64]

# Larger maps would have cells of two pixels on a screen. The page has the same limit.
LARGEST_SIDE = 128


class Relu(NamedTuple):
    """max(0, x)."""


class Affine(NamedTuple):
    """x·scale + shift with one number per channel, such as batch norm in evaluation.

    Attributes:
      scale, shift: shape (O,).
      name: as the page calls it.
    """

    scale: npt.ArrayLike
    shift: npt.ArrayLike
    name: str = "batch norm"


Step = Relu | Affine


class Convolution(NamedTuple):
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
    steps: Sequence[Step] = ()
    channels: Sequence[str] = ()


class MaxPool(NamedTuple):
    """The largest cell of each window; cells on the padding do not take part."""

    name: str
    windows: Windows


class Dense(NamedTuple):
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
    steps: Sequence[Step] = ()


Layer = Convolution | MaxPool | Dense


def page(title: str, image: npt.ArrayLike, layers: Sequence[Layer], *, about: str = "") -> str:
    """Returns the page, HTML that needs no other file.

    Args:
      title: heading of the page.
      image: shape (channels, height, width).
      layers: from the image to the output.
      about: a sentence or two below the heading.

    Raises:
      ImportError: if jinja2 is not installed.
      TypeError, ValueError: as `page_data`.
    """
    data = page_data(image, layers)
    return pages.render("explorer.html", title=title, about=about, data=data)


def page_data(image: npt.ArrayLike, layers: Sequence[Layer]) -> dict[str, Any]:
    """Returns what the page is made from, as plain data.

    Returns:
      `image`: channels, height, width and values; `layers`: one mapping each, with all settings
      written out as pairs and all arrays flat in the order of their axes; `largest_side`.

    Raises:
      TypeError: for settings that are not integers.
      ValueError: for arrays whose shapes do not fit, numbers that are not finite, no layer at all,
        maps larger than 128 cells a side, or settings that `convjax.conv2d` would not take.
    """
    pixels = _numbers("image", image, ("channels", "height", "width"))
    channels, *size = pixels.shape
    _check_side("image", size[0], size[1])
    if not layers:
        raise ValueError("layers must hold at least one layer, got none.")
    described, shape = [], (channels, size[0], size[1])
    for layer in layers:
        try:
            entry, shape = _describe(layer, shape)
            _check_side("output", *shape[1:])
        except (TypeError, ValueError) as error:
            raise type(error)(f"layer {layer.name!r}: {error}") from None
        described.append(entry)
    return {
        "image": {
            "channels": channels,
            "height": size[0],
            "width": size[1],
            "values": pixels.ravel().tolist(),
        },
        "layers": described,
        "largest_side": LARGEST_SIDE,
    }


def layers_of(model: nnx.Module) -> list[Layer]:
    """Returns a network's layers for the page, with batch norm as in evaluation.

    Raises:
      TypeError: if the network is not a `ConvNet`.
      ValueError: if a layer's output is not a sum of products with constants per channel: layer,
        group and instance norm divide by what they find in each image; or has groups of channels.
    """
    if not isinstance(model, ConvNet):
        raise TypeError(
            f"model must be a chain of convolutions (ConvNet), got {type(model).__name__}."
        )
    layers: list[Layer] = []
    for i, block in enumerate(model.blocks):
        conv, norm = block.conv, block.norm
        if norm is not None and not isinstance(norm, BatchNorm):
            raise ValueError(
                f"model must have no norm but batch norm, got {type(norm).__name__} in "
                f"blocks.{i}: it divides by the spread of each image, so that its output is no "
                "sum of products with fixed weights. Choose a network with batch norm or none."
            )
        if conv.groups != 1:
            raise ValueError(
                f"model must have no groups of channels, got groups={conv.groups} in blocks.{i}."
            )
        norms: list[Step] = [] if norm is None else [_folded(norm)]
        relus: list[Step] = [Relu()] if block.activate else []
        layers.append(
            Convolution(
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


def _folded(norm: BatchNorm) -> Affine:
    """(x − mean)/√(var + ε)·γ + β as x·scale + shift."""
    scale = _float64(norm.scale) / np.sqrt(_float64(norm.var) + norm.epsilon)
    return Affine(scale, _float64(norm.bias) - _float64(norm.mean) * scale)


def _float64(variable: Any) -> Array:
    return np.asarray(variable[...], np.float64)


def _describe(layer: Layer, shape: tuple[int, int, int]) -> tuple[dict[str, Any], Any]:
    """Returns the entry of a layer and the shape (channels, height, width) of its output."""
    channels, *rest = shape
    size = (rest[0], rest[1])
    if isinstance(layer, MaxPool):
        entry = {"kind": "pool", "name": layer.name, **_settings(layer.windows, size)}
        outputs = output_shape(size, layer.windows)
        _check_windows_have_cells(outputs, size, layer.windows)
        return entry, (channels, *outputs)
    if isinstance(layer, Dense):
        weights = _numbers("weights", layer.weights, ("O", "channels", "height", "width"))
        if weights.shape[1:] != shape:
            raise ValueError(
                f"weights must have the axes (O, channels, height, width) of the map before, whose "
                f"shape is {shape}, got the shape {weights.shape}."
            )
        kind, windows, names = "dense", Windows(size), []
    else:
        weights = _numbers("kernel", layer.kernel, ("O", "I", "height", "width"))
        if weights.shape[1] != channels:
            raise ValueError(
                f"kernel must have as many input channels as the map before, {channels}, got "
                f"{weights.shape[1]}: its shape is {weights.shape} (O, I, height, width)."
            )
        kind, names = "conv", list(layer.channels)
        kernel_size = (weights.shape[2], weights.shape[3])
        windows = Windows(kernel_size, layer.stride, layer.padding, layer.dilation)
    filters = weights.shape[0]
    if names and len(names) != filters:
        raise ValueError(
            f"channels must be empty or one name per output, {filters}, got {len(names)}."
        )
    entry = {
        "kind": kind,
        "name": layer.name,
        **_settings(windows, size),
        "filters": filters,
        "kernel": weights.ravel().tolist(),
        "bias": None if layer.bias is None else _per_channel("bias", layer.bias, filters),
        "steps": [_step(step, filters) for step in layer.steps],
        "channels": names,
    }
    return entry, (filters, *output_shape(size, windows))


def _settings(windows: Windows, size: Pair) -> dict[str, Any]:
    """Returns all settings as pairs; "same" becomes the numbers that it comes to."""
    kernel_size = geometry.pair("kernel_size", windows.kernel_size, minimum=1)
    stride = geometry.pair("stride", windows.stride, minimum=1)
    dilation = geometry.pair("dilation", windows.dilation, minimum=1)
    padding = geometry.resolve_padding(
        windows.padding, size=size, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    return {
        "kernel_size": list(kernel_size),
        "stride": list(stride),
        "padding": [list(side) for side in padding],
        "dilation": list(dilation),
    }


def _check_windows_have_cells(outputs: Pair, size: Pair, windows: Windows) -> None:
    # Rows do not depend on the column, nor columns on the row.
    diagonal = zip(range(outputs[0]), [0] * outputs[0], strict=True)
    cells = [*diagonal, *((0, j) for j in range(outputs[1]))]
    if not all(precedents(cell, size, windows) for cell in cells):
        raise ValueError(
            f"padding must leave every window of the pool a cell, got {windows.padding!r} with "
            f"windows of {windows.kernel_size!r}."
        )


def _step(step: Step, filters: int) -> dict[str, Any]:
    if isinstance(step, Relu):
        return {"kind": "relu"}
    scale, shift = (_per_channel(name, getattr(step, name), filters) for name in ("scale", "shift"))
    return {"kind": "affine", "name": step.name, "scale": scale, "shift": shift}


def _numbers(name: str, values: npt.ArrayLike, axes: tuple[str, ...]) -> Array:
    array = np.asarray(values, np.float64)
    if array.ndim != len(axes) or 0 in array.shape:
        raise ValueError(
            f"{name} must have the axes ({', '.join(axes)}), none of them empty, got the shape "
            f"{array.shape}."
        )
    _check_finite(name, array)
    return array


def _per_channel(name: str, values: npt.ArrayLike, filters: int) -> list[float]:
    array = np.asarray(values, np.float64)
    if array.shape != (filters,):
        raise ValueError(
            f"{name} must have one number per output channel, shape ({filters},), got the shape "
            f"{array.shape}."
        )
    _check_finite(name, array)
    return array.tolist()


def _check_finite(name: str, array: Array) -> None:
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"{name} must hold finite numbers, got {count} of {array.size} that are not: the page "
            "cannot show them. Of a training that went out of range, take another."
        )


def _check_side(name: str, height: int, width: int) -> None:
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(
            f"{name} must have at most {LARGEST_SIDE} cells a side, got {height}×{width}: the "
            "cells of a larger one are too small to point at. Use a smaller image."
        )
