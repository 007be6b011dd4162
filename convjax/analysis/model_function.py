"""Converts a model of any kind into a function of arrays, so that it can be traced."""

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
      call: maps (arrays, images) to (outputs of the layers, output of the model).
      arrays: parameters and other arrays of the model, or their shapes.
      images: the last argument.
      names: of the layers in the order of their calls; filled when `call` is traced.
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
      model, args, select, **kwargs: as for `convjax.capture`; the last of `args` are the images. An
        NNX module is copied, and the copy is set to evaluation mode.
      layout: order of the axes of the images.

    Raises:
      TypeError: if the images are missing, or a Linen module has no variables.
      ValueError: if the layout is unknown, or the images do not have four non-empty axes.
    """
    check_layout(layout)
    if not args or not hasattr(args[-1], "shape"):
        got = type(args[-1]).__name__ if args else "none"
        raise TypeError(
            f"images must be an array and the last argument, got {got}. Pass them after "
            "the variables."
        )
    *before, images = args
    if isinstance(model, linen.Module) and not before:
        raise TypeError(
            f"args must be (variables, images) for a Linen module, got {type(model).__name__} with "
            "images alone. `model.init(key, images)` makes the variables."
        )
    if len(images.shape) != 4 or 0 in images.shape:
        raise ValueError(
            f"images must have the four axes {layout}, none of them empty, got shape "
            f"{tuple(images.shape)}. Add axes of size 1 where they are missing."
        )
    graphdef = None
    if isinstance(model, nnx.Module):
        # A copy, because tracing may change it. Evaluation mode concerns BatchNorm and Dropout.
        model = nnx.clone(model)
        model.eval()
        graphdef, state = nnx.split(model)
        before = [state, *before]
    # Parameters are arguments, so that their shapes suffice.
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
