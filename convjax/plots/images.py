"""Plots of images, kernels and feature maps: grids with one scale for all panels. NaN is black."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int, Num, UInt8

from convjax.ops.layout import KERNEL_AXES, check_layout, permutation
from convjax.plots.figure import Size, new_figure, shown_in_notebooks

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.image


def show_image(
    image: Num[Array | np.ndarray, "..."],
    *,
    cmap: str | None = None,
    ax: "matplotlib.axes.Axes | None" = None,
    title: str | None = None,
    figsize: Size = None,
) -> "matplotlib.axes.Axes":
    """Draws one image; fastai's `show_image`.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3), or with the channels first, as PyTorch has them.
        Whole numbers are pixels from 0 to 255; others are drawn from their least to their greatest.
      cmap: of an image of one channel, such as "Purples"; grey by default.
      ax: where it is drawn, such as one of `subplots`; by default a new figure.
      title: above it.
      figsize: width and height of the new figure, inches.

    Returns:
      The axes, which a notebook shows if they are new; `axes.figure` is the figure.

    Raises:
      ValueError: for another shape.

    Examples:
      >>> import numpy as np
      >>> from convjax import plots
      >>> axes = plots.show_image(np.zeros((28, 28, 1), np.uint8), cmap="Greys", title="3")
      >>> axes.get_title()
      '3'
    """
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[-1] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[-1] != 3):
        raise ValueError(
            f"image must have the shape (H, W), (H, W, 1) or (H, W, 3), got {pixels.shape}. Pass "
            "one image of a batch: images[0]."
        )
    whole = np.issubdtype(pixels.dtype, np.integer)
    if pixels.ndim == 3 and not whole:
        low, high = np.nanmin(pixels), np.nanmax(pixels)
        pixels = (pixels - low) / max(high - low, 1e-12)
    if ax is None:
        figure = new_figure(2, 2 * pixels.shape[0] / pixels.shape[1] + 0.3, figsize)
        ax = figure.subplots()
        shown_in_notebooks(ax, figure)
    low, high = (0, 255) if whole else (None, None)
    ax.imshow(pixels, cmap=cmap or "gray", vmin=low, vmax=high)
    ax.set(xticks=[], yticks=[])
    if title is not None:
        ax.set_title(title)
    return ax


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: Size = None
) -> "tuple[matplotlib.figure.Figure, npt.NDArray[np.object_]]":
    """Returns a figure and the axes of its panels, a row each; fastai's `subplots`.

    Args:
      rows, columns: of the panels.
      figsize: width and height, inches; 3 of each panel by default.

    Examples:
      >>> from convjax import plots
      >>> figure, axes = plots.subplots(2, 3)
      >>> axes.shape
      (2, 3)
    """
    figure = new_figure(3 * columns, 3 * rows, figsize)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show_batch(
    images: UInt8[Array | np.ndarray, "N H W C"],
    labels: Int[Array | np.ndarray, " N"] | Sequence[int],
    class_names: Sequence[str],
    count: int = 9,
    *,
    figsize: Size = None,
) -> "matplotlib.figure.Figure":
    """Draws the first images of a batch with the names of their classes.

    Args:
      images: (N, H, W, C) with C = 1 (grey) or 3 (RGB), pixels 0..255.
      labels: (N,) indices into class_names.
      class_names: the name of each label.
      count: the largest number of images.
      figsize: width and height, inches.

    Raises:
      ValueError: if a dtype or shape is another, a label has no name, or count is below 1.

    Examples:
      >>> import numpy as np
      >>> from convjax import plots
      >>> images = np.zeros((2, 8, 8, 1), np.uint8)
      >>> figure = plots.show_batch(images, np.array([1, 0]), ["zero", "one"])
      >>> [axes.get_title() for axes in figure.axes]
      ['one', 'zero']
    """
    pictures, indices = np.asarray(images), np.asarray(labels)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] not in (1, 3):
        raise ValueError(
            "images must be uint8 with the shape (N, H, W, C) and C = 1 or 3, got "
            f"{pictures.dtype} {pictures.shape}. Pass the images before normalisation."
        )
    if indices.shape != (len(pictures),):
        raise ValueError(
            f"labels must hold one index per image, shape ({len(pictures)},), got {indices.shape}. "
            "Pass the labels of these images."
        )
    if count < 1 or not len(pictures):
        raise ValueError(
            f"count and the number of images must be at least 1, got {count} and {len(pictures)}. "
            "Pass one image or more."
        )
    pictures, indices = pictures[:count], indices[:count]
    if indices.min() < 0 or indices.max() >= len(class_names):
        raise ValueError(
            f"labels must lie in 0..{len(class_names) - 1}, the indices of class_names, "
            f"got {indices.min()} to {indices.max()}. Pass the names of all classes."
        )
    figure, panels = _grid(len(pictures), pictures.shape[1:3], cell=1.5, bar=False, figsize=figsize)
    for axes, picture, index in zip(panels, pictures, indices, strict=True):
        grey = picture.shape[-1] == 1
        axes.imshow(picture[..., 0] if grey else picture, cmap="gray", vmin=0, vmax=255)
        lines = class_names[index].split("\n")
        title = "\n".join(textwrap.fill(line, 17) for line in lines)  # letters of this size
        axes.set_title(title, fontsize="medium")
    return figure


def show_kernels(
    kernel: Num[Array | np.ndarray, "..."], layout: str = "NHWC", *, figsize: Size = None
) -> "matplotlib.figure.Figure":
    """Draws the kernels of a convolution as images, one panel per output channel.

    Three input channels are drawn as RGB: a weight of zero is mid-grey, and the weight with the
    largest magnitude in the layer is full or no colour. One input channel is drawn in blue for
    negative and red for positive weights, with a colour bar. Of any other number of input channels
    the mean is drawn the same way; weights of opposite sign cancel in it.

    Args:
      kernel: axes in the order of the layout: HWIO, OIHW or IHWO.
      layout: "NHWC", "NCHW" or "CHWN". The kernels of `convjax.nn.Conv` and of Flax are those of
        NHWC, whatever the layout of their maps.
      figsize: width and height, inches.

    Raises:
      ValueError: if the layout is unknown, or kernel has another number of axes or an empty axis.

    Examples:
      >>> import numpy as np
      >>> from convjax import plots
      >>> figure = plots.show_kernels(np.ones((3, 3, 1, 4)), "NHWC")
      >>> [axes.get_title() for axes in figure.axes[:4]]
      ['0', '1', '2', '3']
    """
    axes_of_kernel = KERNEL_AXES[check_layout(layout)]
    weights = _four_axes("kernel", kernel, axes_of_kernel)
    weights = weights.transpose(permutation(axes_of_kernel, "OHWI"))
    outputs, height, width, inputs = weights.shape
    colour = inputs == 3
    if not colour:
        weights = weights.mean(-1)
    limit = _largest(np.abs(weights)) or 1.0  # of a symmetric scale, with zero in the middle
    figure, panels = _grid(outputs, (height, width), cell=1.1, bar=not colour, figsize=figsize)
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


def show_feature_maps(
    maps: Num[Array | np.ndarray, "..."],
    layout: str,
    example: int = 0,
    *,
    figsize: Size = None,
) -> "matplotlib.figure.Figure":
    """Draws the feature maps of one example, one panel per channel, on one colour scale.

    Args:
      maps: a layer's output, with the axes of the layout.
      layout: "NHWC", "NCHW" or "CHWN".
      example: index along the axis N; it may be negative.
      figsize: width and height, inches.

    Raises:
      IndexError: if there is no such example.
      ValueError: if the layout is unknown, or maps has another number of axes or an empty axis.

    Examples:
      >>> import numpy as np
      >>> from convjax import plots
      >>> figure = plots.show_feature_maps(np.ones((1, 5, 5, 2)), "NHWC")
      >>> [axes.get_title() for axes in figure.axes[:2]]
      ['0', '1']
    """
    outputs = _four_axes("maps", maps, check_layout(layout))
    outputs = outputs.transpose(permutation(layout, "NCHW"))
    if not -len(outputs) <= example < len(outputs):
        raise IndexError(
            f"example must be an index into the {len(outputs)} examples of maps, got {example}. "
            "Examples count from 0."
        )
    channels = outputs[example]
    figure, panels = _grid(len(channels), channels.shape[1:], cell=1.1, bar=True, figsize=figsize)
    low, high = -_largest(-channels), _largest(channels)
    for i, axes in enumerate(panels):
        picture = axes.imshow(channels[i], cmap="viridis", vmin=low, vmax=high)
        axes.set_title(str(i), fontsize="small")
    figure.suptitle("Feature maps by channel")
    _color_bar(figure, picture, "output")
    return figure


def _four_axes(name: str, array: npt.ArrayLike, letters: str) -> Float[np.ndarray, "A B C D"]:
    # matplotlib does not support bfloat16.
    values = np.asarray(array).astype(np.float32)
    if values.ndim != 4 or 0 in values.shape:
        raise ValueError(
            f"{name} must have the four axes {letters}, none of them empty, "
            f"got the shape {values.shape}. Pass the array of one layer."
        )
    return values


def _largest(values: Float[np.ndarray, "..."]) -> float:
    """Returns the largest finite number, or 0 if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _grid(
    count: int, shape: Sequence[int], *, cell: int | float, bar: bool, figsize: Size
) -> "tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]":
    """Returns a figure with a nearly square grid of panels without ticks, and the panels.

    Args:
      count: number of panels.
      shape: (height, width) of the images in pixels.
      cell: width of a panel in inches; the panels together are between 3 and 12 inches wide.
      bar: leave room for a colour bar.
      figsize: width and height of the figure, inches; None for those of the panels.
    """
    root = math.sqrt(count)
    # The number of columns leaves no gap in the last row, unless that would make a long strip.
    full = [c for c in range(math.ceil(root), int(2 * root) + 1) if count % c == 0]
    columns = full[0] if full else math.ceil(root)
    rows = -(-count // columns)
    cell = min(max(cell, 3 / columns), 12 / columns)
    # Inches: 0.16 between panels (see new_figure), 1 for a bar, 0.25 and 0.6 for titles.
    width = columns * (cell + 0.16) + (1 if bar else 0)
    height = rows * (cell * shape[0] / shape[1] + 0.12 + 0.25) + 0.6
    figure = new_figure(width, height, figsize)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        # imshow leaves NaN transparent, which would look like zero on white.
        axes.set(xticks=[], yticks=[], facecolor="black")
    return figure, panels[:count]


def _color_bar(
    figure: "matplotlib.figure.Figure", picture: "matplotlib.image.AxesImage", label: str
) -> None:
    # The bar is 0.15 inches wide; by default it would widen with the grid.
    width, height = figure.get_size_inches()
    figure.colorbar(
        picture, ax=figure.axes, label=label, fraction=0.2 / width, aspect=height / 0.15, pad=0.01
    )
