"""Pictures of images, kernels and feature maps, as grids with one scale for all panels.

NaN is black. As in `convjax.plots`, every function returns a matplotlib `Figure`, without pyplot.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convjax.ops.layout import KERNEL_AXES, check_layout, permutation
from convjax.plots.figure import new_figure
from convjax.stats.record import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


def show_batch(
    images: npt.ArrayLike, labels: npt.ArrayLike, class_names: Sequence[str], count: int = 9
) -> "Figure":
    """Draws the first images of a batch with the names of their classes.

    Args:
      images: uint8 (N, H, W, C), C = 1 (grey) or 3 (RGB), pixels 0..255.
      labels: int (N,), each an index into class_names.
      class_names: the name of label i at index i.
      count: how many images at most.

    Raises:
      ValueError: for another dtype or shape, a label without a name, or count below 1.
    """
    pictures, indices = np.asarray(images), np.asarray(labels)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] not in (1, 3):
        raise ValueError(
            "images must be uint8 with the shape (N, H, W, C) and C = 1 or 3, got "
            f"{pictures.dtype} {pictures.shape}: pass the images before normalisation."
        )
    if indices.shape != (len(pictures),):
        raise ValueError(
            f"labels must hold one index per image, shape ({len(pictures)},), got {indices.shape}."
        )
    if count < 1 or not len(pictures):
        raise ValueError(
            f"count and the number of images must be at least 1, got {count} and {len(pictures)}."
        )
    pictures, indices = pictures[:count], indices[:count]
    if indices.min() < 0 or indices.max() >= len(class_names):
        raise ValueError(
            f"labels must lie in 0..{len(class_names) - 1}, the indices of class_names, "
            f"got {indices.min()} to {indices.max()}."
        )
    figure, panels = _grid(len(pictures), pictures.shape[1:3], cell=1.5, bar=False)
    for axes, picture, index in zip(panels, pictures, indices, strict=True):
        grey = picture.shape[-1] == 1
        axes.imshow(picture[..., 0] if grey else picture, cmap="gray", vmin=0, vmax=255)
        # 17 letters of this size fill a panel.
        axes.set_title(textwrap.fill(class_names[index], 17), fontsize="medium")
    return figure


def show_kernels(kernel: npt.ArrayLike, layout: str) -> "Figure":
    """Draws the kernels of a convolution as images, one panel per output channel.

    Three input channels are drawn as RGB: a weight of zero is mid-grey, and the largest absolute
    weight of the layer is full or no colour. One input channel is drawn blue for negative and
    red for positive, with a colour bar; for any other number of input channels the same picture
    shows their mean, which is a summary only: weights of opposite sign cancel in it.

    Args:
      kernel: axes HWIO, OIHW or IHWO, as the layout has them.
      layout: "NHWC", "NCHW" or "CHWN", of the convolution.

    Raises:
      ValueError: for an unknown layout, another number of axes, or an empty axis.
    """
    axes_of_kernel = KERNEL_AXES[check_layout(layout)]
    weights = _four_axes("kernel", kernel, axes_of_kernel)
    weights = weights.transpose(permutation(axes_of_kernel, "OHWI"))
    outputs, height, width, inputs = weights.shape
    colour = inputs == 3
    if not colour:
        weights = weights.mean(-1)
    # Symmetric, so that zero has the middle colour.
    limit = _largest(np.abs(weights)) or 1.0
    figure, panels = _grid(outputs, (height, width), cell=1.1, bar=not colour)
    for i, axes in enumerate(panels):
        if colour:
            axes.imshow(np.nan_to_num(np.clip(0.5 + weights[i] / (2 * limit), 0, 1)))
        else:
            picture = axes.imshow(weights[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(str(i), fontsize="small")
    if colour:
        figure.suptitle(f"Kernels by output channel\nRGB, mid-grey = 0, full = ±{limit:.2g}")
    else:
        figure.suptitle("Kernels by output channel")
        label = "weight" if inputs == 1 else f"mean weight over {inputs} input channels"
        _color_bar(figure, picture, label)
    return figure


def show_feature_maps(maps: npt.ArrayLike, layout: str, example: int = 0) -> "Figure":
    """Draws the maps of one example, one panel per channel, with one colour scale.

    Args:
      maps: a layer's output, axes as the layout has them.
      layout: "NHWC", "NCHW" or "CHWN".
      example: index along the axis N; it may be negative.

    Raises:
      IndexError: if there is no such example.
      ValueError: for an unknown layout, another number of axes, or an empty axis.
    """
    outputs = _four_axes("maps", maps, check_layout(layout))
    outputs = outputs.transpose(permutation(layout, "NCHW"))
    if not -len(outputs) <= example < len(outputs):
        raise IndexError(f"example {example} is out of range; maps hold {len(outputs)} examples.")
    channels = outputs[example]
    figure, panels = _grid(len(channels), channels.shape[1:], cell=1.1, bar=True)
    low, high = -_largest(-channels), _largest(channels)
    for i, axes in enumerate(panels):
        picture = axes.imshow(channels[i], cmap="viridis", vmin=low, vmax=high)
        axes.set_title(str(i), fontsize="small")
    figure.suptitle("Feature maps by channel")
    _color_bar(figure, picture, "output")
    return figure


def _four_axes(name: str, array: npt.ArrayLike, letters: str) -> Array:
    # float32, because matplotlib does not know bfloat16.
    values = np.asarray(array).astype(np.float32)
    if values.ndim != 4 or 0 in values.shape:
        raise ValueError(
            f"{name} must have the four axes {letters}, none of them empty, "
            f"got the shape {values.shape}."
        )
    return values


def _largest(values: Array) -> float:
    """Returns the largest finite number, 0 where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _grid(
    count: int, shape: Sequence[int], *, cell: float, bar: bool
) -> "tuple[Figure, list[Axes]]":
    """Returns a figure of `count` panels without ticks, as many columns as rows or somewhat more.

    Args:
      shape: (height, width) of the pictures in pixels.
      cell: width of a panel in inches. Few panels are larger, so that together they are 3 inches
        wide, and many are smaller, so that they are at most 12.
      bar: leave room for a colour bar.
    """
    root = math.sqrt(count)
    # A number of columns that leaves no gap in the last row, unless that makes a long strip.
    full = [c for c in range(math.ceil(root), int(2 * root) + 1) if count % c == 0]
    columns = full[0] if full else math.ceil(root)
    rows = -(-count // columns)
    cell = min(max(cell, 3 / columns), 12 / columns)
    # In inches: 0.16 between panels (see new_figure), 1 for a bar, 0.25 and 0.6 for titles.
    width = columns * (cell + 0.16) + (1 if bar else 0)
    height = rows * (cell * shape[0] / shape[1] + 0.12 + 0.25) + 0.6
    figure = new_figure(width, height)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        # imshow leaves NaN transparent, which on white would look like zero.
        axes.set(xticks=[], yticks=[], facecolor="black")
    return figure, panels[:count]


def _color_bar(figure: "Figure", picture: "AxesImage", label: str) -> None:
    # By default the bar widens with the grid; this one is 0.15 inches wide.
    width, height = figure.get_size_inches()
    figure.colorbar(
        picture, ax=figure.axes, label=label, fraction=0.2 / width, aspect=height / 0.15, pad=0.01
    )
