"""The explorer: a page that traces a network's convolutions cell by cell and can change them.

The page contains the image and the weights and computes every map itself, in float64. Maps and
images have the axes (channels, height, width).
"""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from convjax._checks import check_type, describe_value
from convjax.analysis._precedents import Windows, output_shape, precedents, resolve_windows
from convjax.explorer.layer_spec import DenseSpec, LayerSpec, MaxPoolSpec, PostOp, ReluSpec
from convjax.ops.geometry import Pair
from convjax.report import html

MapShape = tuple[int, int, int]

LARGEST_SIDE = 128  # cells; those of larger maps would be two screen pixels wide


def page(title: str, image: npt.ArrayLike, layers: Sequence[LayerSpec], *, about: str = "") -> str:
    """Returns the HTML page, which needs no other file.

    Args:
      title: heading of the page.
      image: an image (channels, height, width).
      layers: the layers from the image to the output, of `convjax.explorer.layer_spec`.
      about: text below the heading.

    Raises:
      ImportError: if jinja2 is not installed.
      TypeError: as `page_data`.
      ValueError: as `page_data`.

    Examples:
      >>> import numpy as np
      >>> from convjax import explorer
      >>> from convjax.explorer.layer_spec import ConvolutionSpec
      >>> layers = [ConvolutionSpec("edges", np.ones((1, 1, 3, 3)))]
      >>> explorer.page("Edges", np.zeros((1, 8, 8)), layers).startswith("<!doctype html>")
      True
    """
    data = page_data(image, layers)
    return html.render("convjax.explorer", "explorer.html", title=title, about=about, data=data)


def page_data(image: npt.ArrayLike, layers: Sequence[LayerSpec]) -> dict[str, Any]:
    """Returns the content of the page as plain data.

    Args:
      image: an image (channels, height, width).
      layers: the layers from the image to the output, of `convjax.explorer.layer_spec`.

    Returns:
      `image`: channels, height, width and values; `layers`: one mapping each, with all settings
      written out as pairs and all arrays flat in the order of their axes; `largest_side`.

    Raises:
      TypeError: if a layer, step, window or name has another type, an array has no numbers, or a
        setting is not an integer.
      ValueError: if there is no layer, the shapes of arrays do not match, a number is not finite, a
        side of a map has more than 128 cells, or `convjax.conv2d` would not accept a setting.

    Examples:
      >>> import numpy as np
      >>> from convjax import explorer
      >>> from convjax.explorer.layer_spec import ConvolutionSpec
      >>> layers = [ConvolutionSpec("edges", np.ones((1, 1, 3, 3)), padding="same")]
      >>> explorer.page_data(np.zeros((1, 8, 8)), layers)["layers"][0]["padding"]
      [[1, 1], [1, 1]]
    """
    pixels = _numbers("image", image, ("channels", "height", "width"))
    channels, height, width = pixels.shape
    shape = (channels, height, width)
    _check_side("image", shape)
    fix = "convjax.explorer.layer_specs returns the layers of a network."
    _check_items("layers", layers, get_args(LayerSpec), fix)
    if not layers:
        raise ValueError("layers must hold at least one layer, got none. Pass one or more.")
    described = []
    for i, layer in enumerate(layers):
        check_type(f"layers[{i}].name", layer.name, str, "Pass the name that the page shows.")
        before = "map before" if i else "image"
        try:
            entry, shape = _describe(layer, shape, before)
            _check_side("output", shape)
        except (TypeError, ValueError) as error:
            raise type(error)(f"layer {layer.name!r}: {error}") from None
        described.append(entry)
    return {
        "image": {
            "channels": channels,
            "height": height,
            "width": width,
            "values": pixels.ravel().tolist(),
        },
        "layers": described,
        "largest_side": LARGEST_SIDE,
    }


def _describe(layer: LayerSpec, shape: MapShape, before: str) -> tuple[dict[str, Any], MapShape]:
    """Returns the entry of a layer and the shape of its output.

    Args:
      layer: the layer.
      shape: of the map before the layer.
      before: the name of that map in messages.
    """
    channels, size = shape[0], shape[1:]
    if isinstance(layer, MaxPoolSpec):
        check_type("windows", layer.windows, Windows, "Pass for example Windows(2, stride=2).")
        pooled = output_shape(size, layer.windows)
        _check_windows_have_cells(pooled, size, layer.windows)
        entry = {"kind": "pool", "name": layer.name, **_settings(layer.windows, size)}
        return entry, (channels, *pooled)
    if isinstance(layer, DenseSpec):
        weights = _numbers("weights", layer.weights, ("O", "channels", "height", "width"))
        if weights.shape[1:] != shape:
            raise ValueError(
                f"weights must have the axes (O, channels, height, width) of the {before}, whose "
                f"shape is {shape}, got the shape {weights.shape}. Reshape them."
            )
        kind, windows, names = "dense", Windows(size), []
    else:
        weights = _numbers("kernel", layer.kernel, ("O", "I", "height", "width"))
        if weights.shape[1] != channels:
            raise ValueError(
                f"kernel must have as many input channels as the {before}, {channels}, got "
                f"{weights.shape[1]}: its shape is {weights.shape} (O, I, height, width), that of "
                f"the {before} {shape} (channels, height, width). Transpose one of them."
            )
        _check_items("channels", layer.channels, (str,), "Pass one name per output, or none.")
        kind, names = "conv", list(layer.channels)
        kernel_size = (weights.shape[2], weights.shape[3])
        windows = Windows(kernel_size, layer.stride, layer.padding, layer.dilation)
    filters = weights.shape[0]
    if names and len(names) != filters:
        raise ValueError(
            f"channels must be empty or one name per output, {filters}, got {len(names)}. Pass as "
            "many."
        )
    _check_items(
        "steps", layer.steps, get_args(PostOp), "Pass objects of convjax.explorer.layer_spec."
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
    """Returns all settings as pairs; "same" becomes the resulting numbers."""
    return {name: _lists(value) for name, value in resolve_windows(windows, size)._asdict().items()}


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value


def _step(step: PostOp, filters: int) -> dict[str, Any]:
    if isinstance(step, ReluSpec):
        return {"kind": "relu"}
    scale, shift = (_per_channel(name, getattr(step, name), filters) for name in ("scale", "shift"))
    return {"kind": "affine", "name": step.name, "scale": scale, "shift": shift}


def _check_items(name: str, items: Any, kinds: tuple[type, ...], fix: str) -> None:
    """Raises TypeError unless an argument is a sequence of these types."""
    allowed = " or ".join(kind.__name__ for kind in kinds)
    # A single layer is also a sequence, of its fields.
    if isinstance(items, kinds) or not isinstance(items, Sequence):
        raise TypeError(f"{name} must be a list of {allowed}, got {describe_value(items)}. {fix}")
    for i, item in enumerate(items):
        if not isinstance(item, kinds):
            raise TypeError(f"{name}[{i}] must be {allowed}, got {describe_value(item)}. {fix}")


def _check_windows_have_cells(outputs: Pair, size: Pair, windows: Windows) -> None:
    # Rows and columns are independent of each other.
    diagonal = zip(range(outputs[0]), [0] * outputs[0], strict=True)
    cells = [*diagonal, *((0, j) for j in range(outputs[1]))]
    if not all(precedents(cell, size, windows) for cell in cells):
        raise ValueError(
            f"padding must leave every window of the pool a cell, got {windows.padding!r} with "
            f"windows of {windows.kernel_size!r}. Pass less padding."
        )


def _numbers(name: str, values: npt.ArrayLike, axes: tuple[str, ...]) -> Float64[np.ndarray, "..."]:
    array = _float64(name, values)
    if array.ndim != len(axes) or 0 in array.shape:
        raise ValueError(
            f"{name} must have the axes ({', '.join(axes)}), none of them empty, got the shape "
            f"{array.shape}. Reshape it."
        )
    _check_finite(name, array)
    return array


def _per_channel(name: str, values: npt.ArrayLike, filters: int) -> list[float]:
    array = _float64(name, values)
    if array.shape != (filters,):
        raise ValueError(
            f"{name} must have one number per output channel, shape ({filters},), got the shape "
            f"{array.shape}. Reshape it."
        )
    _check_finite(name, array)
    return array.tolist()


def _float64(name: str, values: Any) -> Float64[np.ndarray, "..."]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array of numbers, got {describe_value(values)}. {error}"
        ) from None


def _check_finite(name: str, array: Float64[np.ndarray, "..."]) -> None:
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"{name} must hold finite numbers, got {count} of {array.size} that are not. If the "
            "training diverged, use another one."
        )


def _check_side(name: str, shape: MapShape) -> None:
    _, height, width = shape
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(
            f"{name} must have at most {LARGEST_SIDE} cells on a side, got {height}×{width} in the "
            f"shape {shape} (channels, height, width). Use a smaller image."
        )
