"""The effective receptive field: how much each pixel changes one cell, measured by the gradient.

`convjax.receptive_fields` gives the pixels that can influence a cell. The gradient of the cell with
respect to the pixels gives those that do, for the weights at hand. Most pixels of a receptive field
have little influence.

References:
  Luo, Li, Urtasun and Zemel, "Understanding the effective receptive field in deep convolutional
  neural networks", https://arxiv.org/abs/1701.04128.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from convjax.analysis._precedents import checked_cell
from convjax.analysis.model_function import as_function
from convjax.analysis.receptive_field import receptive_fields
from convjax.nn._capture import channel_axes
from convjax.nn.selection import Select, has_parameters
from convjax.ops.geometry import Pair
from convjax.ops.layout import images_to

# Luo et al. count the pixels above 1 − 95.45 % of the largest magnitude, because two standard
# deviations of a normal distribution cover 95.45 %.
COUNTS_FROM = 1 - 0.9545


@dataclass(frozen=True)
class EffectiveField:
    """The influence of each pixel of the image on one cell of a layer's map.

    Attributes:
      layer: name of the layer.
      cell: (row, column) in the map.
      magnitude: (H, W), the root of the squared gradient, summed over the channels and averaged
        over the images.
    """

    layer: str
    cell: Pair
    magnitude: Float[np.ndarray, "H W"]

    @property
    def support(self) -> tuple[slice, slice]:
        """Rows and columns of the smallest box that contains all non-zero gradients.

        In a non-linear network the box can miss pixels that matter for other images: an inactive
        ReLU, or a pixel that is not the maximum of its pooling window, has no gradient.
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
        """Side in pixels of a square with as many pixels as have a notable influence.

        These are the pixels above 4.55 % of the largest magnitude (Luo et al.).
        """
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
    """Measures by the gradient how much each pixel changes one cell of a layer's map.

    The gradient is that of a random combination of the cell's channels. Each image has its own
    combination, so that channels do not cancel systematically.

    Args:
      model, args, layout, select, kwargs: as for `convjax.receptive_fields`. The images must be
        floating-point and normalised as the network expects; a few dozen suffice.
      layer: a name that `receptive_fields` returns, of a layer whose map has rows and columns.
      cell: (row, column) in the map; the middle by default.
      seed: of the random combination.

    Raises:
      ValueError: if the layer does not exist or has no map, there is no image, or a gradient is not
        finite; or as `receptive_fields`.
      IndexError: if the map has no such cell.
      TypeError: if the images are not floating-point, or as `receptive_fields`.

    Examples:
      >>> import jax
      >>> from flax import nnx
      >>> import convjax
      >>> model = convjax.digits_net(rngs=nnx.Rngs(0))
      >>> images = jax.random.normal(jax.random.key(0), (8, 28, 28, 1))
      >>> field = convjax.effective_field(model, images, layer="blocks.1.conv")
      >>> field.size, field.effective_size <= 9
      ((9, 9), True)
    """
    fields = receptive_fields(model, *args, layout=layout, select=select, **kwargs)
    if layer not in fields:
        raise ValueError(f"layer must be one of {', '.join(map(repr, fields))}, got {layer!r}.")
    traceable = as_function(model, args, layout=layout, select=select, **kwargs)
    images = traceable.images
    if isinstance(images, jax.ShapeDtypeStruct) or not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating-point, got {type(images).__name__} of {images.dtype}. "
            "Normalise them as in training."
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
            f"layer must have a map with rows and columns, got {layer!r} of shape {shape}. "
            "Choose a layer before it."
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
        # N and C have size 1, so this only orders rows and columns.
        return jnp.sqrt(images_to(mean, "NHWC", source=layout)[0, :, :, 0])

    magnitude = np.asarray(gradient(images))
    if not np.isfinite(magnitude).all():
        raise ValueError(
            f"the gradients of {layer!r} must be finite, got NaN or infinity. Check the parameters "
            "and the images."
        )
    return EffectiveField(layer, (row, column), magnitude)


def _likely_axes(model: Any, layer: str, shape: tuple[int, ...]) -> Pair:
    """Returns the axes of rows and columns of a map whose receptive field is unknown."""
    channels = channel_axes(model, {layer: jnp.empty(shape)})[layer] % 4
    # CHWN is the only layout with the channels first.
    return {0: (1, 2), 1: (2, 3), 3: (1, 2)}[channels]
