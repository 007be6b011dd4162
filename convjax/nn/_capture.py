"""`capture`: the outputs of a model's layers by name, without a change to the model.

Each kind of model has its own mechanism: NNX in `convjax.nn._capture_nnx`, Linen in
`convjax.nn._capture_linen`, and a function names its own values.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import linen, nnx
from jaxtyping import Array, Shaped

from convjax.nn._capture_linen import capture_linen
from convjax.nn._capture_nnx import capture_nnx, layer_names
from convjax.nn.selection import Predicate, Select, has_parameters, no_match_error, predicate
from convjax.ops.layout import KERNEL_AXES, axis_of

__all__ = ["capture", "channel_axes", "layer_names"]


def capture(
    model: Any, *args: Any, select: Select = has_parameters, **kwargs: Any
) -> tuple[Any, dict[str, Any]]:
    """Calls a model and returns its output together with the outputs of its layers.

    It works inside jit, grad, scan and vmap. It only keeps values that the forward pass computes
    anyway; the compiler drops those that are not used.

    Args:
      model: called with `args` and `kwargs`. One of: a Flax NNX module; a Flax Linen module, whose
        first argument is then its variables, as for `apply`, which also takes `rngs` and
        `mutable`; a function that returns a pair of its output and a mapping of named values.
      select: which layers to capture, see `convjax.nn.selection.Select`. The default selects the
        modules with parameters of their own. A convolution followed by ReLU is thus captured
        before the ReLU, as by fastai's ActivationStats. "*" selects every module.

    Returns:
      (output, {name: output of that module}), in the order of the calls. A module called again
      adds "name#2", "name#3" and so on. The output of a layer called by nnx.scan or nnx.vmap has
      the axis of that transform. With Linen's `mutable`, the output is the pair (output, changed
      variables), as from `apply`.

    Raises:
      ValueError: if nothing is selected, no selected layer is called, or the output of a selected
        layer does not leave a transform.
      TypeError: if `model` is of another kind, or `select` is not a selection.

    Examples:
      >>> import convjax, jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> model = convjax.ConvNet((1, 4, 2), layout="NHWC", rngs=nnx.Rngs(0))
      >>> output, layers = convjax.capture(model, jnp.ones((3, 8, 8, 1)))
      >>> {name: value.shape for name, value in layers.items()}
      {'blocks.0.conv': (3, 4, 4, 4), 'blocks.1.conv': (3, 2, 2, 2)}

      Inside a compiled function, one layer selected by a pattern of names:

      >>> @nnx.jit
      ... def mean_of_first(model, images):
      ...     _, layers = convjax.capture(model, images, select="blocks.0.*")
      ...     return {name: value.mean() for name, value in layers.items()}
      >>> list(mean_of_first(model, jnp.ones((3, 8, 8, 1))))
      ['blocks.0.conv']

      A function that names its values:

      >>> def doubled(x):
      ...     return x.sum(), {"double": 2 * x}
      >>> convjax.capture(doubled, jnp.arange(3))[1]["double"].tolist()
      [0, 2, 4]
    """
    if isinstance(model, nnx.Module):
        return capture_nnx(model, args, kwargs, select)
    if isinstance(model, linen.Module):
        return capture_linen(model, args, kwargs, predicate(select))
    if isinstance(model, type):
        raise TypeError(
            f"model must be a Flax module or a function, got the class {model.__name__}. "
            "Construct an instance of it first."
        )
    if not callable(model):
        raise TypeError(f"model must be a Flax module or a function, got {type(model).__name__}.")
    return _capture_named_values(model, args, kwargs, predicate(select))


def channel_axes(
    model: Any, outputs: Mapping[str, Shaped[Array | np.ndarray, "..."]]
) -> dict[str, int]:
    """Returns the axis of the channels in the output of each layer.

    This is the last axis, as everywhere in Flax, except for the four-axis maps of convjax layers
    in a layout whose channels are elsewhere.

    Args:
      model: the model that computed `outputs`; only NNX modules can have a layout.
      outputs: layer outputs by name, as `capture` returns them.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> from flax import nnx
      >>> model = convjax.ConvNet((1, 4, 2), layout="NCHW", rngs=nnx.Rngs(0))
      >>> _, layers = convjax.capture(model, jnp.ones((3, 8, 8, 1)))
      >>> convjax.channel_axes(model, layers)
      {'blocks.0.conv': 1, 'blocks.1.conv': 1}
    """
    layouts: dict[str, Any] = {}
    if isinstance(model, nnx.Module):
        modules = nnx.iter_modules(model)
        layouts = {".".join(map(str, p)): getattr(m, "layout", None) for p, m in modules}

    def axis(name: str, output: Any) -> int:
        layout = layouts.get(name.split("#")[0])
        if isinstance(layout, str) and layout in KERNEL_AXES and output.ndim == 4:
            return axis_of("C", layout)
        return -1

    return {name: axis(name, output) for name, output in outputs.items()}


def _capture_named_values(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], selects: Predicate
) -> tuple[Any, dict[str, Any]]:
    result = model(*args, **kwargs)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise TypeError(
            "model, if a function, must return a pair of its output and a mapping of named "
            f"values, got {type(result).__name__}."
        )
    output, values = result
    found = {name: value for name, value in values.items() if selects(name, None)}
    if not found:
        raise no_match_error(getattr(model, "__name__", repr(model)), list(values))
    return output, found
