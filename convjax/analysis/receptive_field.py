"""Receptive fields of any network by formula: size, stride and padding.

The network is traced and not run. Every operation between the images and a layer is followed, so
the field does not depend on the weights. `convjax.effective_field` measures their effect.

References:
  Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
  https://distill.pub/2019/computing-receptive-fields.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

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

# Key of the network's output. Names of layers contain no parentheses.
OUTPUT = "(output)"


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels of the image that the cells of a layer's map depend on.

    Cell (i, j) depends on the rows from rows.stride·i + rows.low to rows.stride·i + rows.high, and
    on columns likewise. Rows and columns beyond the border are padding.

    Attributes:
      rows, columns: the spans along both axes; None if the field is unknown.
      reason: the operation at which the trace ended; "" if the field is known.
      cells: (height, width) of the map; None if the output has no axes of rows and columns, such as
        after flattening, or the field is unknown.
      axes: positions of rows and columns among the axes of the output; None as for `cells`.
    """

    rows: Span | None
    columns: Span | None
    reason: str = ""
    cells: Pair | None = None
    axes: Pair | None = None

    @property
    def size(self) -> tuple[int | float, int | float] | None:
        """(height, width) in pixels; infinite where every cell depends on the whole image."""
        if self.rows is None or self.columns is None:
            return None
        return self.rows.size, self.columns.size

    @property
    def stride(self) -> tuple[Number, Number] | None:
        """(vertical, horizontal) pixels between the fields of neighbouring cells."""
        if self.rows is None or self.columns is None:
            return None
        return _whole(self.rows.stride), _whole(self.columns.stride)

    @property
    def padding(self) -> tuple[Number, Number] | None:
        """(top, left) pixels by which the field of cell (0, 0) extends beyond the image."""
        if self.rows is None or self.columns is None:
            return None
        return _whole(self.rows.padding), _whole(self.columns.padding)

    def box(self, cell: Pair, image_size: Pair) -> tuple[slice, slice] | None:
        """Returns the rows and columns of an image that one cell can depend on, without padding.

        Near the border a cell may depend on fewer pixels, because a layer in between reads its own
        padding. Dilated kernels leave gaps inside the box.

        Args:
          cell: (row, column) in the map; negative numbers count from the end.
          image_size: (height, width) of the image.

        Returns:
          Slices of rows and columns; None if the field is unknown.

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
    """Returns the receptive field of every layer and of the output, by formula.

    Branches are joined: the field of a cell covers all paths. A layer that reads the whole map,
    such as a global mean or attention, has an infinite field, however small the image is. A layer
    that `scan` calls several times has one field, the union of its calls. The layers of a stack
    that `scan` iterates over have a field each. The field is unknown where rows or columns are
    reversed, concatenated (padding by reflection or wrapping), or gathered at indices that are
    computed at run time.

    Args:
      model: as for `convjax.capture`: a Flax NNX module, which is traced in evaluation mode; a
        Linen module, with its variables as the first argument; or a function that returns its
        output and a mapping of named values.
      *args: as for `convjax.capture`; the last are the images. Arrays, or `jax.ShapeDtypeStruct`.
      layout: order of the axes of the images.
      select: the layers to report, see `convjax.nn.selection.Select`.
      **kwargs: keyword arguments of the model, such as train=False.

    Returns:
      Fields by the names of the layers in the order of their calls; "(output)" is last.

    Raises:
      TypeError: if the images are missing, or as `convjax.capture`.
      ValueError: if the images do not have the four axes of `layout`, or as `convjax.capture`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import convjax
      >>> model = convjax.digits_net(rngs=nnx.Rngs(0))
      >>> fields = convjax.receptive_fields(model, jnp.zeros((1, 28, 28, 1)))
      >>> field = fields["blocks.1.conv"]
      >>> field.size, field.stride, field.padding
      ((9, 9), (4, 4), (4, 4))
    """
    traceable = as_function(model, args, layout=layout, select=select, **kwargs)
    images = traceable.images
    traced, shapes = jax.make_jaxpr(traceable.call, return_shape=True)(traceable.arrays, images)
    return fields_of(traced, shapes, traceable.names, len(traceable.arrays), layout)


def fields_of(
    program: ClosedJaxpr, outputs: Any, names: Sequence[str], images: int, layout: str
) -> dict[str, ReceptiveField]:
    """Returns the receptive fields of a traced call of a model.

    Args:
      program: returns the outputs of the layers and of the model.
      outputs: the shapes of these: (one tree for each layer, one tree).
      names: of the layers.
      images: the position of the images among the arguments of the program.
      layout: of the images.
    """
    shape = program.in_avals[images].shape
    start = TracedArray((), {"H": PIXEL_SPAN, "W": PIXEL_SPAN}).with_axes(
        [
            (AxisFactor(size, letter if letter in "HW" else ""),)
            for size, letter in zip(shape, layout, strict=True)
        ]
    )
    arguments: list[TracedValue] = [None] * len(program.in_avals)
    arguments[images] = start
    traced_values = iter(propagate(program, arguments))
    layers, output = outputs
    fields = {}
    for name, of_layer in [*zip(names, layers, strict=True), (OUTPUT, output)]:
        # A recurrent cell returns several arrays; the first represents them.
        found = [_field(next(traced_values)) for _ in jax.tree.leaves(of_layer)]
        fields[name] = (
            found[0] if found else ReceptiveField(None, None, "the output is not an array")
        )
    return fields


def _field(value: TracedValue) -> ReceptiveField:
    if isinstance(value, UntraceableError):
        return ReceptiveField(None, None, str(value))
    if not isinstance(value, TracedArray):
        return ReceptiveField(None, None, "the output does not depend on the images")
    seen = value.folded()
    rows, columns = seen.axis_of("H"), seen.axis_of("W")
    if rows is None or columns is None:
        return ReceptiveField(value.spans["H"], value.spans["W"])
    cells = (seen.shape[rows], seen.shape[columns])
    return ReceptiveField(seen.spans["H"], seen.spans["W"], cells=cells, axes=(rows, columns))


def _whole(number: Number) -> Number:
    """Returns a number as an int if it is whole."""
    return int(number) if number == number // 1 != math.inf else number


def _inside(span: Span, index: int, size: int) -> slice:
    if span.size == math.inf:
        return slice(0, size)
    first = math.ceil(span.low + span.stride * index)
    last = math.floor(span.high + span.stride * index)
    return slice(max(first, 0), min(max(last + 1, 0), size))
