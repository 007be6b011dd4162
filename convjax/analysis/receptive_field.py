"""Receptive fields of any network, by formula: how large, how far apart, how far over the border.

The network is traced, not run, and every operation between the images and a layer is followed: the
field does not depend on the weights. `convjax.analysis._effective_field` measures what the weights make of it.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax

from convjax.analysis._precedents import checked_cell
from convjax.analysis.affine import (
    PIXEL_SPAN,
    AxisFactor,
    Number,
    Span,
    TracedArray,
    TracedValue,
    UntraceableError,
)
from convjax.analysis.jaxpr_walk import propagate
from convjax.analysis.model_function import as_function
from convjax.nn.selection import Select, has_parameters
from convjax.ops.geometry import Pair

# The network's own output among its layers, none of which has parentheses in its name.
OUTPUT = "(output)"


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels of the image the cells of a layer's map see.

    Cell (i, j) sees the rows from rows.stride·i + rows.low to rows.stride·i + rows.high, and
    columns likewise; those beyond the border are padding.

    Attributes:
      rows, columns: see `Span`; None where the field cannot be told.
      reason: which operation it is lost at, "" where it is known.
      cells: (height, width) of the map; None where its axes are no longer rows and columns, as
        behind a flattening, or the field is lost.
      axes: which axes of the layer's output are rows and columns; None likewise.
    """

    rows: Span | None
    columns: Span | None
    reason: str = ""
    cells: Pair | None = None
    axes: Pair | None = None

    @property
    def size(self) -> tuple[int | float, int | float] | None:
        """(height, width) in pixels; infinite where every cell sees all of the image."""
        if self.rows is None or self.columns is None:
            return None
        return self.rows.size, self.columns.size

    @property
    def stride(self) -> tuple[Number, Number] | None:
        """(down, across): pixels between the fields of neighbouring cells."""
        if self.rows is None or self.columns is None:
            return None
        return _whole(self.rows.stride), _whole(self.columns.stride)

    @property
    def padding(self) -> tuple[Number, Number] | None:
        """(above, left): pixels by which the field of cell (0, 0) exceeds the image."""
        if self.rows is None or self.columns is None:
            return None
        return _whole(self.rows.padding), _whole(self.columns.padding)

    def box(self, cell: Pair, image_size: Pair) -> tuple[slice, slice] | None:
        """Returns the rows and the columns of an image that one cell sees, without the padding.

        Near the border it can be fewer, where a layer between sees its padding instead; with
        dilations there are holes between. None where the field is not known.

        Args:
          cell: (row, column) in the map; negative ones count from the end.
          image_size: (height, width) of the image.

        Raises:
          IndexError: if the map has no such cell.
        """
        if self.rows is None or self.columns is None:
            return None
        if self.cells is not None:
            cell = checked_cell(cell, self.cells)
        rows, columns = (
            _inside(span, index, size)
            for span, index, size in zip((self.rows, self.columns), cell, image_size, strict=True)
        )
        return rows, columns


def receptive_fields(
    model: Any,
    *args: Any,
    layout: str = "NHWC",
    select: Select = has_parameters,
    **kwargs: Any,
) -> dict[str, ReceptiveField]:
    """Returns the receptive field of every layer, and of the output, by formula.

    Branches are joined: a cell sees what it sees on any path. A layer that looks at the whole map,
    such as a global mean, sees an infinite field, however small the image is; attention counts as
    such. A layer that `scan` calls several times has one field, that of all its calls. Rows or
    columns that are turned around, joined end to end (padding by reflection or around the edge) or
    looked up at places that only the run decides have no field that this can tell.

    Args:
      model: as for `convjax.capture`: a Flax NNX module, which is traced in evaluation mode; a
        Linen module, with its variables as the first argument; or a function that returns its
        output and a mapping of named values.
      *args: as for `convjax.capture`; the last are the images. Arrays, or `jax.ShapeDtypeStruct`.
      layout: order of the axes of the images.
      select: which layers, see `convjax.nn.selection.Select`.
      **kwargs: of the model, such as train=False.

    Returns:
      Fields by the layers' names in the order of their calls; "(output)" last.

    Raises:
      TypeError: without images, or as `convjax.capture`.
      ValueError: if the images have not the four axes of `layout`, or as `convjax.capture`.
    """
    traceable = as_function(model, args, layout=layout, select=select, **kwargs)
    images = traceable.images
    traced, shapes = jax.make_jaxpr(traceable.call, return_shape=True)(traceable.arrays, images)
    start = TracedArray((), {"H": PIXEL_SPAN, "W": PIXEL_SPAN}).with_axes(
        [
            (AxisFactor(size, letter if letter in "HW" else ""),)
            for size, letter in zip(images.shape, layout, strict=True)
        ]
    )
    sights = iter(propagate(traced, [*[None] * len(traceable.arrays), start]))
    layers, output = shapes
    fields = {}
    for name, of_layer in [*zip(traceable.names, layers, strict=True), (OUTPUT, output)]:
        # A recurrent cell returns several arrays: the first stands for them.
        found = [_field(next(sights)) for _ in jax.tree.leaves(of_layer)]
        fields[name] = found[0] if found else ReceptiveField(None, None, "it is no array")
    return fields


def _field(sight: TracedValue) -> ReceptiveField:
    if isinstance(sight, UntraceableError):
        return ReceptiveField(None, None, str(sight))
    if not isinstance(sight, TracedArray):
        return ReceptiveField(None, None, "it does not depend on the images")
    seen = sight.folded()
    rows, columns = seen.axis_of("H"), seen.axis_of("W")
    if rows is None or columns is None:
        return ReceptiveField(sight.spans["H"], sight.spans["W"])
    cells = (seen.shape[rows], seen.shape[columns])
    return ReceptiveField(seen.spans["H"], seen.spans["W"], cells=cells, axes=(rows, columns))


def _whole(number: Number) -> Number:
    """Returns a whole number as an int."""
    return int(number) if number == number // 1 != math.inf else number


def _inside(span: Span, index: int, size: int) -> slice:
    if span.size == math.inf:
        return slice(0, size)
    first = math.ceil(span.low + span.stride * index)
    last = math.floor(span.high + span.stride * index)
    return slice(max(first, 0), min(max(last + 1, 0), size))
