"""Drawings of colour: the channels of a photograph, and a kernel with one layer per channel."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jaxtyping import Num, UInt8

from convjax.ops import reference
from convjax.plots.chapter.grids import FONT, bracketed, number, numbers, readable_on, signed
from convjax.plots.figure import new_figure

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.image

NAMES = ("red", "green", "blue")
SUBSCRIPTS = "RGB"


def colour_channels(photo: npt.ArrayLike, place: tuple[int, int]) -> "matplotlib.figure.Figure":
    """Draws a photograph and its three channels, each in its own colour.

    Args:
      photo: RGB, uint8 (H, W, 3).
      place: (row, column) of a pixel, which is marked; its numbers are in the titles.

    Raises:
      ValueError: if photo has another dtype or shape, or place is outside it.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> figure = drawings.colour_channels(np.full((4, 6, 3), 9, np.uint8), (1, 2))
      >>> figure.axes[1].get_title()
      'red: 9 at the mark'
    """
    pixels = _photo("photo", photo)
    row, column = _inside("place", place, pixels.shape[:2])
    height = 4.0 * pixels.shape[0] / pixels.shape[1]
    figure = new_figure(9, 2 * height + 0.9)
    panels = figure.subplots(2, 2).ravel()
    panels[0].imshow(pixels)
    panels[0].set_title(f"photograph, pixel ({row}, {column}) marked")
    for channel, axes in enumerate(panels[1:]):
        axes.imshow(tinted(pixels, channel))
        axes.set_title(f"{NAMES[channel]}: {pixels[row, column, channel]} at the mark")
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        for color, size in (("black", 13), ("white", 10)):
            axes.plot(
                column, row, "o", markersize=size, markerfacecolor="none", markeredgecolor=color
            )
    return figure


def colour_kernel(
    photo: npt.ArrayLike, kernel: npt.ArrayLike, bias: int | float, place: tuple[int, int]
) -> "matplotlib.figure.Figure":
    """Draws what a colour kernel computes: one map per channel, and their sum plus the bias.

    All maps have one colour scale, which covers 99 % of their numbers.

    Args:
      photo: RGB, uint8 (H, W, 3), small enough to show its pixels.
      kernel: (3, kh, kw), one layer per channel.
      bias: added once.
      place: centre (row, column) whose numbers are written out.

    Raises:
      ValueError: if a shape is another, or the kernel does not fit at place.

    Examples:
      >>> import numpy as np
      >>> from convjax import drawings
      >>> photo = np.full((6, 6, 3), 10, np.uint8)
      >>> figure = drawings.colour_kernel(photo, np.ones((3, 3, 3)), 5.0, (2, 2))
      >>> [axes.get_title() for axes in figure.axes if axes.get_title().startswith("yR =")]
      ['yR = 90 at the mark']
    """
    pixels, weights = _photo("photo", photo), np.asarray(kernel)
    if weights.ndim != 3 or len(weights) != 3 or not weights.size:
        raise ValueError(
            f"kernel must have the shape (3, kh, kw), one layer per channel, got {weights.shape}. "
            "For an HWIO kernel pass kernel[..., i].transpose(2, 0, 1)."
        )
    planes = pixels.astype(np.int64).transpose(2, 0, 1)
    at = [
        reference.apply_kernel(plane, *place, layer)
        for plane, layer in zip(planes, weights, strict=True)
    ]
    maps = np.stack(
        [reference.kernel_map(plane, layer) for plane, layer in zip(planes, weights, strict=True)]
    )
    total = maps.sum(0) + bias
    # The few large values at hard edges would leave little colour for the others.
    limit = float(np.percentile(np.abs([*maps, total]), 99)) or 1.0
    figure = new_figure(12, 7.4)
    grid = figure.add_gridspec(3, 4, width_ratios=(1.25, 0.8, 1.25, 1.9))
    for i in range(3):
        image, table, result = (figure.add_subplot(grid[i, j]) for j in range(3))
        image.imshow(tinted(pixels, i))
        image.set_title(f"{NAMES[i]} channel")
        image.set_ylabel(SUBSCRIPTS[i], rotation=0, fontsize=FONT + 4, labelpad=12)
        _mark(image, place, weights.shape[1:])
        _table(table, weights[i], float(np.abs(weights).max()))
        table.set_title(f"its {weights.shape[1]}×{weights.shape[2]} weights")
        _map(result, maps[i], weights.shape[1:], limit)
        result.set_title(f"y{SUBSCRIPTS[i]} = {number(at[i])} at the mark")
        _mark(result, place, (1, 1))
    part = figure.add_subplot(grid[0, 3])
    part.imshow(pixels)
    part.set_title("the three channels together")
    _mark(part, place, weights.shape[1:])
    whole = figure.add_subplot(grid[1:, 3])
    picture = _map(whole, total, weights.shape[1:], limit)
    _mark(whole, place, (1, 1))
    terms = " + ".join(bracketed(value) for value in (*at, bias))
    whole.set_title(
        f"yR + yG + yB + b\nat the mark: {terms} = {number(sum(at) + bias)}", fontsize=FONT + 1
    )
    figure.colorbar(
        picture,
        ax=whole,
        location="bottom",
        label="result, one scale for all four maps",
        pad=0.03,
        extend="both" if np.abs([*maps, total]).max() > limit else "neither",
    )
    return figure


def tinted(photo: UInt8[np.ndarray, "H W 3"], channel: int) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the photograph with all other channels set to 0."""
    alone = np.zeros_like(photo)
    alone[..., channel] = photo[..., channel]
    return alone


def _map(
    axes: "matplotlib.axes.Axes",
    values: Num[np.ndarray, "rows columns"],
    taps: tuple[int, ...],
    limit: int | float,
) -> "matplotlib.image.AxesImage":
    """Draws a map in the coordinates of the image, each cell at its centre."""
    top, left = taps[0] // 2, taps[1] // 2
    height, width = values.shape
    extent = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    picture = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent)
    axes.set(xticks=[], yticks=[])
    axes.set(
        xlim=(-0.5, width + taps[1] - 1.5), ylim=(height + taps[0] - 1.5, -0.5), facecolor="0.93"
    )
    return picture


def _table(
    axes: "matplotlib.axes.Axes", values: Num[np.ndarray, "kh kw"], limit: int | float
) -> None:
    """Draws weights as cells with numbers."""
    colors = signed(values, 2 * limit)  # as in `kernel_at_place`
    axes.imshow(colors)
    for (i, j), text in np.ndenumerate(np.array(numbers(values))):
        ink = readable_on(colors[i, j])
        axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=FONT + 1)
    for line in np.arange(max(values.shape) + 1) - 0.5:
        axes.axhline(line, color="0.6", linewidth=0.6)
        axes.axvline(line, color="0.6", linewidth=0.6)
    rows, columns = values.shape
    axes.set(xticks=[], yticks=[], xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def _mark(axes: "matplotlib.axes.Axes", place: tuple[int, int], taps: tuple[int, ...]) -> None:
    from matplotlib.patches import Rectangle

    corner = place[1] - taps[1] // 2 - 0.5, place[0] - taps[0] // 2 - 0.5
    axes.set(xticks=[], yticks=[])
    for color, width in (("black", 3.4), ("white", 1.6)):  # one of the two is visible on any colour
        axes.add_patch(
            Rectangle(corner, taps[1], taps[0], fill=False, edgecolor=color, linewidth=width)
        )


def _photo(name: str, photo: npt.ArrayLike) -> UInt8[np.ndarray, "H W 3"]:
    pixels = np.asarray(photo)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
        raise ValueError(
            f"{name} must be uint8 with the shape (H, W, 3), got {pixels.dtype} {pixels.shape}: "
            "pass one RGB image before normalisation."
        )
    return pixels


def _inside(name: str, place: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    row, column = place
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        raise ValueError(
            f"{name} must be (row, column) within {shape[0]}×{shape[1]} pixels, got {place}. "
            "Rows and columns count from 0."
        )
    return row, column
