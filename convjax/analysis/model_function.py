"""Models of any kind as functions of arrays alone, to be traced."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen, nnx

from convjax.nn._capture import capture
from convjax.nn.selection import Select
from convjax.ops.layout import check_layout


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
    """Returns a model and its arguments as a function of its parameters and images.

    Args:
      model, args, select, kwargs: as for `convjax.capture`; the last of `args` are images. An NNX
        module is copied and put into evaluation mode.
      layout: order of the axes of the images.

    Raises:
      TypeError: without images, or for a Linen module without variables.
      ValueError: for an unknown layout, or images that have not its four axes or are empty.
    """
    check_layout(layout)
    if not args or not hasattr(args[-1], "shape"):
        got = type(args[-1]).__name__ if args else "none"
        raise TypeError(f"the last argument must be images, an array, got {got}.")
    *before, images = args
    if isinstance(model, linen.Module) and not before:
        raise TypeError(
            f"a Linen module takes its variables before the images: (module, variables, images); "
            f"got {type(model).__name__} with images alone. `model.init(key, images)` makes them."
        )
    if len(images.shape) != 4 or 0 in images.shape:
        raise ValueError(
            f"images must have the four axes {layout}, none of them empty, got the shape "
            f"{tuple(images.shape)}."
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
