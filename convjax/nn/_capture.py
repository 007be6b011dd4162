"""`capture`: the outputs of a model's layers by name, without a change to the model."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import linen, nnx
from jaxtyping import Array, Shaped

from convjax._warnings import warn_user
from convjax.nn._equinox_calls import equinox_modules, is_equinox
from convjax.nn._module_calls import LayerCalls
from convjax.nn._nnx_calls import nnx_modules
from convjax.nn._traced_call import call_with_layers
from convjax.nn.outputs import LayerOutputs
from convjax.nn.selection import Select, has_parameters, no_match_error, predicate
from convjax.ops.layout import KERNEL_AXES, axis_of


def capture(
    model: Any, *args: Any, select: Select = has_parameters, **kwargs: Any
) -> tuple[Any, LayerOutputs]:
    """Calls a model or function and returns its result together with the outputs of its layers.

    It works inside jit, grad, scan, vmap and shard_map, and it may contain them: a whole step with
    `jax.value_and_grad`, and layers within `jax.checkpoint`, `jax.vmap`, `jax.lax.scan` and the
    lifted transforms of Flax. It only keeps values that the call computes anyway; the compiler
    drops those that are not used.

    Args:
      model: called with `args` and `kwargs`. One of: a module of Flax NNX or Equinox; a module of
        Flax Linen, whose first argument is then its variables, as for `apply`, which also takes
        `rngs` and `mutable`; a bound method of these, such as `model.encode` or `state.apply_fn`; a
        function that calls such modules, Haiku's or those among its arguments, such as
        `nnx.value_and_grad(loss)`; a function that calls none and returns a pair of its output and
        a mapping of named values.
      select: which layers to capture, see `convjax.nn.selection.Select`. The default selects the
        modules with parameters of their own. A convolution followed by ReLU is thus captured
        before the ReLU, as by fastai's ActivationStats. "*" selects every module.

    Returns:
      (result, {name: output of that module}), in the order of the calls. The names are the paths in
      the model, joined by dots; a model with parameters of its own has the name of its class.

      - A module called again adds "name#2", "name#3" and so on.
      - A method other than `__call__` adds its name: "embed.attend".
      - The arrays of a tuple or tree are "name:0", "name:h" and so on.
      - Layers of a scan whose parameters differ are "layers[0].linear", "layers[1].linear", …
      - A scan over time and a vmap add their axis before the others.
      - Several models among the arguments of a function have its parameters' names before theirs.

      What cannot be captured is left out with a warning that names it: outputs inside a branch of
      `jax.lax.cond`, a `while_loop`, or a function with derivatives of its own.

    Raises:
      ValueError: if `select` matches none of the layers.
      TypeError: if `model` is not callable or is a class, or `select` is not a selection.

    Examples:
      >>> import convjax, jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> model = convjax.ConvNet((1, 4, 2), layout="NHWC", rngs=nnx.Rngs(0))
      >>> output, layers = convjax.capture(model, jnp.ones((3, 8, 8, 1)))
      >>> {name: value.shape for name, value in layers.items()}
      {'blocks.0.conv': (3, 4, 4, 4), 'blocks.1.conv': (3, 2, 2, 2)}

      Around the gradient of a loss, inside a compiled step:

      >>> @nnx.jit
      ... def step(model, images):
      ...     value_and_grad = nnx.value_and_grad(lambda model: model(images).mean())
      ...     (loss, grads), layers = convjax.capture(value_and_grad, model, select="blocks.0.*")
      ...     return loss, layers
      >>> list(step(model, jnp.ones((3, 8, 8, 1)))[1])
      ['blocks.0.conv', 'blocks.0.relu']

      A function that names its values:

      >>> def doubled(x):
      ...     return x.sum(), {"double": 2 * x}
      >>> convjax.capture(doubled, jnp.arange(3))[1]["double"].tolist()
      [0, 2, 4]
    """
    selects = predicate(select)
    function, args, known = _as_call(model, args)
    calls = LayerCalls(selects)
    error = None
    try:
        result, (outputs, lost, _) = call_with_layers(function, args, kwargs, calls)
    except Exception as failed:
        error = f"{type(failed).__name__}: {failed}"
    if error is not None:
        # A training that runs without a capture must run with it. If the call itself is at fault,
        # it raises its own error here, and no other.
        result = function(*args, **kwargs)
        warn_user(
            f"capture leaves out all layers of {_name(model)}: it cannot trace the call, {error}"
        )
        return result, LayerOutputs()
    names = sorted({*known, *calls.seen})
    if not (outputs or lost) and not calls.seen and _names_values(result):
        result, values = result
        # JAX sorts the keys of a mapping; the function has returned them in the order of its calls.
        values = {name: values[name] for name in calls.order or values}
        outputs = LayerOutputs({n: v for n, v in values.items() if selects(n, None)}, output=result)
        names = list(values)
    if lost:
        warn_user(_lost_message(lost))
    elif not outputs:
        if names and select is not has_parameters:
            raise no_match_error(_name(model), names)
        warn_user(
            f"capture finds no layer of {_name(model)}: it calls none, or none with parameters. "
            "Pass the model itself or a function that has it among its arguments, or a function "
            "that returns (output, {name: value})."
        )
    return result, outputs


def _as_call(
    model: Any, args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...], list[str]]:
    """Returns the function to call, its arguments, and the names of the layers known before."""
    if isinstance(model, type):
        raise TypeError(
            f"model must be a Flax module or a function, got the class {model.__name__}. "
            "Construct an instance of it first."
        )
    if isinstance(model, linen.Module):
        return model.apply, args, []
    owner = getattr(model, "__self__", None)
    if _is_model(model):
        return _called, (model, *args), list(_modules(model))
    if _is_model(owner):  # a bound method
        return getattr(type(owner), model.__name__), (owner, *args), list(_modules(owner))
    if not callable(model):
        raise TypeError(
            f"model must be a Flax module or a function, got {type(model).__name__}. Pass a model "
            "of Flax or Equinox, or a function that calls it."
        )
    equinox = sys.modules.get("equinox")
    if equinox and isinstance(model, equinox.Module):  # a transform, which may hold a model
        return _called, (model, *args), []
    return model, args, []


def _called(model: Any, *args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


def _is_model(value: Any) -> bool:
    return isinstance(value, nnx.Module) or is_equinox(value)


def _modules(model: Any) -> dict[str, Any]:
    return nnx_modules(model) if isinstance(model, nnx.Module) else equinox_modules(model)


def _name(model: Any) -> str:
    return getattr(model, "__name__", type(model).__name__)


def _names_values(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)


def _lost_message(lost: Mapping[str, str]) -> str:
    inside = ", ".join(f"{name} (in {primitive})" for name, primitive in lost.items())
    return (
        f"capture leaves out {inside}: values inside these transforms cannot leave them. Call the "
        "layer outside of them, or in jax.lax.scan, jax.vmap or jax.checkpoint."
    )


def layer_names(model: nnx.Module, select: Select = has_parameters) -> dict[str, nnx.Module]:
    """Returns the selected modules by name: the path joined by dots, such as "blocks.0.conv".

    Raises:
      ValueError: if nothing is selected; the message lists the modules.
      TypeError: if `select` is not a selection.

    Examples:
      >>> import convjax
      >>> from flax import nnx
      >>> model = convjax.ConvNet((1, 4, 2), norm="batch", rngs=nnx.Rngs(0))
      >>> list(convjax.nn.layer_names(model, convjax.nn.Conv))
      ['blocks.0.conv', 'blocks.1.conv']
    """
    modules, selects = nnx_modules(model), predicate(select)
    chosen = {name: module for name, module in modules.items() if selects(name, module)}
    if not chosen:
        raise no_match_error(type(model).__name__, sorted(modules))
    return chosen


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

    known = getattr(outputs, "channel_axes", {})

    def axis(name: str, output: Any) -> int:
        if name in known:
            return output.ndim + known[name]
        layout = layouts.get(name.split("#")[0])
        if isinstance(layout, str) and layout in KERNEL_AXES and output.ndim == 4:
            return axis_of("C", layout)
        return -1

    return {name: axis(name, output) for name, output in outputs.items()}
