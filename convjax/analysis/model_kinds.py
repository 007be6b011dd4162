"""The call of a model of each kind: Flax NNX and Linen, Equinox, Haiku, and functions."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from convjax._checks import describe_value
from convjax.analysis.model_call import FlatTrees, ModelCall, holds_model, made
from convjax.analysis.model_variables import (
    Variables,
    equinox_variables,
    haiku_variables,
    is_array,
    linen_variables,
    nnx_variables,
)
from convjax.nn._equinox_calls import is_equinox

# Axes of the default input, a batch of one image of MNIST.
DEFAULT_SHAPE = (1, 28, 28, 1)


def model_call(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ModelCall:
    """Returns the call of a model with its inputs, nothing of which is computed.

    Args:
      model, args, kwargs: as for `convjax.summary`.

    Raises:
      TypeError: if the model is no model, or no input is an array or a shape.
    """
    owner, method = getattr(model, "__self__", None), None
    if isinstance(owner, nnx.Module | linen.Module) or is_equinox(owner):
        model, method = owner, model.__name__
        method = None if method == "apply" and isinstance(model, linen.Module) else method
    if isinstance(model, type):
        raise TypeError(
            f"model must be a module or a function, got the class {model.__name__}. "
            "Construct an instance of it first."
        )
    stored: list[Any] = []  # what stands before the inputs
    args = list(args)
    if isinstance(model, linen.Module):
        stored = [args.pop(0)] if args and _are_variables(args[0]) else []
    elif (haiku := sys.modules.get("haiku")) and isinstance(
        model, haiku.Transformed | haiku.TransformedWithState
    ):
        # Parameters, with state both, and a key or None.
        before = 2 if isinstance(model, haiku.Transformed) else 3
        if len(args) < before:
            raise TypeError(
                "args must begin with parameters, state if there is one, and a key or None for a "
                f"Haiku transform, got {len(args)} arguments. `model.init` makes the parameters."
            )
        stored, args = args[:before], args[before:]
    elif not callable(model) and not isinstance(model, nnx.Module):
        raise TypeError(
            f"model must be a module or a function, got {describe_value(model)}. Pass the model "
            "itself, then its inputs."
        )
    args, kwargs = _inputs(args, dict(kwargs))
    if isinstance(model, nnx.Module):
        return _nnx_call(model, method, args, kwargs)
    if isinstance(model, linen.Module):
        return _linen_call(model, method, stored, args, kwargs)
    if is_equinox(model):
        return _equinox_call(model, method, args, kwargs)
    return _function_call(model, stored, args, kwargs)


def _inputs(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Returns the inputs with shapes instead of numbers of axes, and with the default image."""
    args = list(args)
    if "input_shape" in kwargs:
        args.insert(0, kwargs.pop("input_shape"))
    given = [value for key, value in kwargs.items() if key not in ("rngs", "mutable", "method")]
    leaves = jax.tree.leaves((args, given), is_leaf=holds_model)
    if any(map(is_array, leaves)):
        return args, kwargs
    if not args:
        args = [DEFAULT_SHAPE]
    shape = args[0]
    numbers = isinstance(shape, Sequence) and all(
        isinstance(size, int | np.integer) and not isinstance(size, bool) for size in shape
    )
    if not numbers or isinstance(shape, str | bytes):
        raise TypeError(
            "args must be the model's inputs: arrays, jax.ShapeDtypeStructs, or the whole numbers "
            f"(N, H, W, C) of a shape of images, got {describe_value(shape)}. For token ids pass "
            "jax.ShapeDtypeStruct((N, T), int)."
        )
    if not len(shape) or min(shape) < 1:
        raise ValueError(
            f"input_shape must have sizes of at least 1, got {tuple(shape)}. Pass (N, H, W, C)."
        )
    return [jax.ShapeDtypeStruct(tuple(map(int, shape)), jnp.float32), *args[1:]], kwargs


def _nnx_call(
    model: nnx.Module, method: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ModelCall:
    # A copy, because tracing may change it. Evaluation mode concerns BatchNorm and Dropout.
    copy = nnx.clone(model)
    copy.eval()
    graph, state = nnx.split(copy)

    def function(state: Any) -> tuple[Callable[..., Any], Sequence[Any]]:
        # Merged inside, so that changes of the model to itself are only traced.
        return _method(method), [nnx.merge(graph, state)]

    name = _named(model, method)
    return made(name, model, state, args, kwargs, nnx_variables(copy), function)


def _equinox_call(
    model: Any, method: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ModelCall:
    def function(stored: Any) -> tuple[Callable[..., Any], Sequence[Any]]:
        return _method(method), [stored]

    name = _named(model, method)
    return made(name, model, model, args, kwargs, equinox_variables(model), function)


def _linen_call(
    model: linen.Module,
    method: str | None,
    stored: Sequence[Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> ModelCall:
    if method is not None:
        kwargs["method"] = method
    method = kwargs.get("method")
    # Any key serves: nothing is computed. Linen makes the streams of all names from "params".
    rngs = kwargs.pop("rngs", None) or jax.eval_shape(lambda: jax.random.key(0))
    variables = stored[0] if stored else _linen_shapes(model, rngs, args, kwargs)

    def function(stored: Any) -> tuple[Callable[..., Any], Sequence[Any]]:
        variables, rngs = stored
        return partial(model.apply, rngs=rngs), [variables]

    name = _named(model, method if isinstance(method, str) else None)
    return made(name, model, (variables, rngs), args, kwargs, linen_variables(variables), function)


def _linen_shapes(
    model: linen.Module, rngs: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Returns the shapes of the variables that a Linen module would initialise."""
    kwargs = {name: value for name, value in kwargs.items() if name != "mutable"}
    flat = FlatTrees([rngs, *args, *kwargs.values()])

    def init(arrays: Sequence[Any]) -> Any:
        rngs, *rest = flat.restored(arrays)
        keys = {"params": jax.random.key(0), **rngs} if isinstance(rngs, Mapping) else rngs
        positional, named = rest[: len(args)], rest[len(args) :]
        return model.init(keys, *positional, **dict(zip(kwargs, named, strict=True)))

    try:
        return jax.eval_shape(init, flat.arrays)
    except Exception as error:
        error.add_note(
            f"convjax.summary initialised {type(model).__name__} to know its parameters, because "
            "no variables stand before its inputs."
        )
        raise


def _function_call(
    model: Any, stored: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ModelCall:
    """Returns the call of a function, which may have one model among its arguments.

    Args:
      model: the function, or a transform of Haiku.
      stored: the parameters of a transform and what stands between them and the inputs.
      args, kwargs: the inputs.
    """
    models = [value for value in args if isinstance(value, nnx.Module) or is_equinox(value)]
    variables: Variables = {}
    if stored:
        variables = haiku_variables(stored[0])
    elif len(models) == 1:
        of = nnx_variables if isinstance(models[0], nnx.Module) else equinox_variables
        variables = of(models[0])
    called = model.apply if stored else model
    name = getattr(model, "__name__", type(model).__name__)
    return made(name, model, list(stored), args, kwargs, variables, lambda stored: (called, stored))


def _method(name: str | None) -> Callable[..., Any]:
    """Returns a function that calls a method of its first argument."""

    def call(model: Any, *args: Any, **kwargs: Any) -> Any:
        return (model if name is None else getattr(model, name))(*args, **kwargs)

    return call


def _named(model: Any, method: str | None) -> str:
    return type(model).__name__ + (f".{method}" if method else "")


def _are_variables(value: Any) -> bool:
    """Returns whether a mapping holds the variables of a Linen module, and is no input."""
    return isinstance(value, Mapping) and (not value or "params" in value)
