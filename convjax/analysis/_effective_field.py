"""The effective receptive field: which pixels move one cell, and by how much, as measured.

The formula of `convjax.analysis.receptive_field` tells which pixels can reach a cell; the gradient of the cell
by the pixels tells which do, with the weights that there are. Most pixels of a field hardly count:
Luo, Li, Urtasun and Zemel, "Understanding the effective receptive field in deep convolutional
neural networks" (https://arxiv.org/abs/1701.04128).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from convjax.analysis._precedents import checked_cell
from convjax.analysis.model_function import as_function
from convjax.analysis.receptive_field import receptive_fields
from convjax.nn._capture import channel_axes
from convjax.nn.selection import Select, has_parameters
from convjax.ops.geometry import Pair
from convjax.ops.layout import images_to

# Luo et al. count the pixels above 1 − 95.45 % of the highest, as two standard deviations of a
# normal distribution hold 95.45 %.
COUNTS_FROM = 1 - 0.9545


@dataclass(frozen=True)
class EffectiveField:
    """How strongly each pixel of the image moves one cell of a layer's map.

    Attributes:
      layer: its name.
      cell: (row, column) in the map.
      magnitude: (H, W) of the image, the root of the squared gradient, summed over the channels
        and averaged over the images.
    """

    layer: str
    cell: Pair
    magnitude: npt.NDArray[np.floating[Any]]

    @property
    def support(self) -> tuple[slice, slice]:
        """Rows and columns of the smallest box outside which no gradient is found.

        Where the network is not linear it can miss pixels that matter for other images: a ReLU
        that is off, or a pixel that is not the largest of its pooling, has no gradient.
        """
        rows, columns = (np.flatnonzero((self.magnitude > 0).any(axis)) for axis in (1, 0))
        if not len(rows):
            return slice(0, 0), slice(0, 0)
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the support in pixels."""
        rows, columns = self.support
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def effective_size(self) -> float:
        """The side, in pixels, of a square as large as the pixels that count: those above 4.55 %
        of the largest magnitude (Luo et al.)."""
        largest = self.magnitude.max()
        return float(np.sqrt((self.magnitude > COUNTS_FROM * largest).sum())) if largest else 0.0


def effective_field(
    model: Any,
    *args: Any,
    layer: str,
    cell: Pair | None = None,
    layout: str = "NHWC",
    select: Select = has_parameters,
    seed: int = 0,
    **kwargs: Any,
) -> EffectiveField:
    """Measures which pixels move one cell of a layer's map, by the gradient.

    The gradient is that of a random combination of the cell's channels, another one for each image,
    in which no two channels always cancel.

    Args:
      model, *args, layout, select, **kwargs: as for `convjax.receptive_fields`; the images must be
        floats here, as the network is given them (normalised), some tens of them.
      layer: a name that `receptive_fields` returns, whose map has rows and columns.
      cell: (row, column) in the map; by default the one in the middle.
      seed: of the random combination.

    Raises:
      ValueError: if there is no such layer, it has no map, there is no image, or a gradient is not
        finite; or as `receptive_fields`.
      IndexError: if the map has no such cell.
      TypeError: if the images are no floats, or as `receptive_fields`.
    """
    fields = receptive_fields(model, *args, layout=layout, select=select, **kwargs)
    if layer not in fields:
        raise ValueError(f"layer must be one of {', '.join(map(repr, fields))}, got {layer!r}.")
    traceable = as_function(model, args, layout=layout, select=select, **kwargs)
    images = traceable.images
    if isinstance(images, jax.ShapeDtypeStruct) or not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floats, as the network is given them, got {type(images).__name__} "
            f"of {images.dtype}."
        )
    images = jnp.asarray(images)
    number = list(fields).index(layer)

    def output_of(images: jax.Array) -> jax.Array:
        outputs, output = traceable.call(traceable.arrays, images)
        return jax.tree.leaves([*outputs, output][number])[0]

    shape = jax.eval_shape(output_of, images).shape
    axes = fields[layer].axes
    if axes is None and fields[layer].reason and len(shape) == 4:
        axes = _likely_axes(model, layer, shape)
    if axes is None:
        raise ValueError(
            f"layer must have a map with rows and columns; {layer!r} has the shape {shape}, in "
            "which they are no axes of their own. Choose a layer before it."
        )
    size = (shape[axes[0]], shape[axes[1]])
    row, column = checked_cell((size[0] // 2, size[1] // 2) if cell is None else cell, size)

    def channels_of_cell(images: jax.Array) -> jax.Array:
        return jnp.moveaxis(output_of(images), axes, (0, 1))[row, column]

    @jax.jit
    def gradient(images: jax.Array) -> jax.Array:
        channels, pull = jax.vjp(channels_of_cell, images)
        (found,) = pull(jax.random.normal(jax.random.key(seed), channels.shape, channels.dtype))
        squares = jnp.square(found).sum(layout.index("C"), keepdims=True)
        mean = squares.mean(layout.index("N"), keepdims=True)
        # N and C have one index left, so that this only orders rows and columns.
        return jnp.sqrt(images_to(mean, "NHWC", source=layout)[0, :, :, 0])

    magnitude = np.asarray(gradient(images))
    if not np.isfinite(magnitude).all():
        raise ValueError(
            f"the gradients of {layer!r} must be finite, got NaN or infinity: look for them in the "
            "parameters and the images."
        )
    return EffectiveField(layer, (row, column), magnitude)


def _likely_axes(model: Any, layer: str, shape: tuple[int, ...]) -> Pair:
    """Returns rows and columns of a map where the formula has lost them."""
    channels = channel_axes(model, {layer: jnp.empty(shape)})[layer] % 4
    # Batch innermost is the only order here with the channels first.
    return {0: (1, 2), 1: (2, 3), 3: (1, 2)}[channels]
