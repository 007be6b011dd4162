"""Receptive fields of any network, by formula: how large, how far apart, how far over the border.

The network is traced, not run, and every operation between the images and a layer is followed: the
field does not depend on the weights. `convjax.effective` measures what the weights make of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from flax import nnx

from convjax.capture import capture
from convjax.layout import check_layout
from convjax.propagation import Sight, propagate
from convjax.select import Select, has_parameters
from convjax.spans import START, Atom, LostError, Number, Seen, Span

# The name of the network's own output among those of its layers.
OUTPUT = "output"


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
    """

    rows: Span | None
    columns: Span | None
    reason: str = ""
    cells: tuple[int, int] | None = None

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

    def box(self, cell: tuple[int, int], image_size: tuple[int, int]) -> tuple[slice, slice] | None:
        """Returns the rows and the columns of an image that one cell sees, without the padding.

        Near the border it can be fewer, where a layer between sees its padding instead.

        Args:
          cell: (row, column) in the map, from 0.
          image_size: (height, width) of the image.
        """
        if self.rows is None or self.columns is None:
            return None
        top, left = (
            _inside(span, index, size)
            for span, index, size in zip((self.rows, self.columns), cell, image_size, strict=True)
        )
        return top, left


def receptive_fields(
    model: Any,
    *args: Any,
    layout: str = "NHWC",
    select: Select = has_parameters,
    **kwargs: Any,
) -> dict[str, ReceptiveField]:
    """Returns the receptive field of every layer, and of the output, by formula.

    Branches are joined: a cell sees what it sees on any path. A layer that looks at the whole map,
    such as a global mean, sees an infinite field, however small the image is. A product along rows
    or columns counts as such a look; `jax.image.resize` makes one.

    Args:
      model: as for `convjax.capture`: a Flax NNX module, which is traced in evaluation mode; a
        Linen module, with its variables as the first argument; or a function that returns its
        output and a mapping of named values.
      *args: as for `convjax.capture`; the last are the images. Arrays, or `jax.ShapeDtypeStruct`.
      layout: order of the axes of the images.
      select: which layers, see `convjax.select.Select`.
      **kwargs: of the model, such as train=False.

    Returns:
      Fields by the layers' names in the order of their calls; "output" last.

    Raises:
      TypeError: without images, or as `convjax.capture`.
      ValueError: if the images have not the four axes of `layout`, or as `convjax.capture`.
    """
    traceable = as_function(model, args, layout=layout, select=select, **kwargs)
    images, arrays, names = traceable.images, traceable.arrays, traceable.names
    call = traceable.call
    traced, shapes = jax.make_jaxpr(call, return_shape=True)(arrays, images)
    axes = [
        (Atom(size, letter if letter in "HW" else ""),)
        for size, letter in zip(images.shape, layout, strict=True)
    ]
    start = Seen((), {"H": START, "W": START}).with_axes(axes)
    sights = iter(propagate(traced, [*[None] * len(arrays), start]))
    layers, output = shapes
    fields = {}
    for name, of_layer in [*zip(names, layers, strict=True), (OUTPUT, output)]:
        # A recurrent cell returns several arrays: the first stands for them.
        first, *_ = [_field(next(sights)) for _ in jax.tree.leaves(of_layer)]
        fields[name] = first
    return fields


class Traceable(NamedTuple):
    """A model as a function of arrays alone.

    Attributes:
      call: maps (arrays, images) to (the outputs of the layers, the output).
      arrays: parameters and the like, or their shapes.
      images: the last argument.
      names: of the layers in the order of their calls, after `call` has been traced.
    """

    call: Callable[[dict[int, Any], Any], tuple[list[Any], Any]]
    arrays: dict[int, Any]
    images: Any
    names: list[str]


def as_function(
    model: Any, args: Sequence[Any], *, layout: str, select: Select, **kwargs: Any
) -> Traceable:
    """Returns a model and its arguments as a function; see `receptive_fields` for all of them."""
    check_layout(layout)
    if not args or not hasattr(args[-1], "shape"):
        got = type(args[-1]).__name__ if args else "none"
        raise TypeError(f"the last argument must be images, an array, got {got}.")
    *before, images = args
    if len(images.shape) != 4:
        raise ValueError(
            f"images must have the four axes {layout}, got the shape {tuple(images.shape)}."
        )
    graphdef = None
    if isinstance(model, nnx.Module):
        # A copy, which the tracing may change: BatchNorm and Dropout at evaluation.
        model = nnx.clone(model)
        model.eval()
        graphdef, state = nnx.split(model)
        before = [state, *before]
    # Parameters are arguments, too, so that their shapes suffice.
    leaves, structure = jax.tree.flatten(before)
    arrays = {i: leaf for i, leaf in enumerate(leaves) if hasattr(leaf, "shape")}
    names: list[str] = []

    def call(arrays: dict[int, Any], images: jax.Array) -> tuple[list[Any], Any]:
        known = jax.tree.unflatten(
            structure, [arrays.get(i, leaf) for i, leaf in enumerate(leaves)]
        )
        network = model
        if graphdef is not None:
            network, known = nnx.merge(graphdef, known[0]), known[1:]
        output, found = capture(network, *known, images, select=select, **kwargs)
        names[:] = found
        return list(found.values()), output

    return Traceable(call, arrays, images, names)


def _field(sight: Sight) -> ReceptiveField:
    if sight is None:
        return ReceptiveField(None, None, "it does not depend on the images")
    if isinstance(sight, LostError):
        return ReceptiveField(None, None, str(sight))
    places = sight.axis_of("H"), sight.axis_of("W")
    cells = None
    if None not in places:
        cells = tuple(sight.shape[place] for place in places if place is not None)
    return ReceptiveField(sight.spans["H"], sight.spans["W"], cells=cells)  # type: ignore[arg-type]


def _whole(number: Number) -> Number:
    """Returns a whole number as an int."""
    return int(number) if number == number // 1 != math.inf else number


def _inside(span: Span, index: int, size: int) -> slice:
    if span.size == math.inf:
        return slice(0, size)
    first = math.ceil(span.low + span.stride * index)
    last = math.floor(span.high + span.stride * index)
    return slice(max(first, 0), min(max(last + 1, 0), size))
