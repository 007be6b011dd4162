"""The effective receptive field: which pixels move one cell, and by how much, as measured.

The formula of `convjax.receptive` tells which pixels can reach a cell; the gradient of the cell
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

from convjax.capture import channel_axes
from convjax.receptive import OUTPUT, as_function
from convjax.select import Select, has_parameters

# Luo et al. count the pixels above 1 − 95.45 % of the highest, as two standard deviations of a
# normal distribution hold 95.45 %.
COUNTS_FROM = 1 - 0.9545


@dataclass(frozen=True)
class EffectiveField:
    """How strongly each pixel of the image moves one cell of a layer's map.

    Attributes:
      layer: its name.
      cell: (row, column) in the map.
      magnitude: (H, W), root of the mean squared gradient over the images, channels summed.
    """

    layer: str
    cell: tuple[int, int]
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
    cell: tuple[int, int] | None = None,
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
        numbers here, as the network is given them (normalised), some tens of them.
      layer: a name that `receptive_fields` returns, whose map has rows and columns.
      cell: (row, column) in the map; by default the one in the middle.
      seed: of the random combination.

    Raises:
      ValueError: if there is no such layer or it has no map, or as `receptive_fields`.
      IndexError: if the map has no such cell.
      TypeError: as `receptive_fields`.
    """
    traceable = as_function(model, args, layout=layout, select=select, **kwargs)
    images = jnp.asarray(traceable.images)

    def maps(images: jax.Array) -> jax.Array:
        outputs, output = traceable.call(traceable.arrays, images)
        found = {**dict(zip(traceable.names, outputs, strict=True)), OUTPUT: output}
        if layer not in found:
            raise ValueError(f"layer must be one of {', '.join(map(repr, found))}, got {layer!r}.")
        if jnp.ndim(found[layer]) != 4:
            raise ValueError(
                f"layer must have a map of four axes, {layer!r} has the shape "
                f"{jnp.shape(found[layer])}."
            )
        return _channels_last(model, layer, found[layer])

    height, width = jax.eval_shape(maps, images).shape[1:3]
    row, column = (height // 2, width // 2) if cell is None else cell
    if not (-height <= row < height and -width <= column < width):
        raise IndexError(f"cell {cell} is out of range: the map of {layer!r} is {height}×{width}.")

    @jax.jit
    def gradient(images: jax.Array) -> jax.Array:
        output, pull = jax.vjp(lambda x: maps(x)[:, row, column], images)
        (found,) = pull(jax.random.normal(jax.random.key(seed), output.shape, output.dtype))
        found = jnp.square(found).sum(layout.index("C"), keepdims=True)
        return jnp.sqrt(found.mean(layout.index("N"), keepdims=True)).reshape(
            [found.shape[layout.index(letter)] for letter in "HW"]
        )

    return EffectiveField(layer, (row % height, column % width), np.asarray(gradient(images)))


def _channels_last(model: Any, layer: str, maps: jax.Array) -> jax.Array:
    """Returns a map as NHWC."""
    channels = channel_axes(model, {layer: maps})[layer] % 4
    if layer == OUTPUT and isinstance(layout := getattr(model, "layout", None), str):
        channels = layout.find("C")
    # Batch innermost is the only order here with the channels first.
    return maps.transpose({0: (3, 1, 2, 0), 1: (0, 2, 3, 1), 3: (0, 1, 2, 3)}[channels])
