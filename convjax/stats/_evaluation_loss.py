"""The loss of a training step's batch with its models in evaluation mode.

The step is traced once more. Its layers that differ between training and evaluation, batch norm and
dropout, then behave as in evaluation, whatever the step asks for. Only the loss is computed: the
compiler drops gradients and updates.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, wraps
from typing import Any

import jax
from flax import linen, nnx

from convjax.nn._equinox_calls import equinox_modules, is_equinox
from convjax.nn._nnx_calls import on_merge

# The names of the arguments and attributes that choose evaluation, in Flax.
_MODES = ("use_running_average", "deterministic")

# JAX traces an inner function, such as a jitted one, only once. In evaluation mode it has another
# program, which the training must not find.
_evaluating = jax.make_user_context(None)


def evaluation_loss(step: Callable[..., Any], find_loss: Callable[[Any], Any]) -> Any:
    """Returns a function of the arguments of a step that returns its loss in evaluation mode.

    It returns None for a step without layers that depend on the mode. It changes no argument.
    """

    @wraps(step)
    def loss(*args: Any, **kwargs: Any) -> jax.Array | None:
        mode = _Mode()
        args, kwargs = _copied((args, kwargs))
        args, kwargs = jax.tree.map(mode.evaluating, (args, kwargs), is_leaf=_is_model)
        with ExitStack() as contexts:
            contexts.enter_context(_evaluating(mode))
            contexts.enter_context(on_merge(mode.evaluating))
            contexts.enter_context(linen.intercept_methods(mode.linen_call))
            if haiku := sys.modules.get("haiku"):
                contexts.enter_context(haiku.intercept_methods(mode.haiku_call))
            result = step(*args, **kwargs)
        return find_loss(result) if mode.matters else None

    return loss


def _is_model(value: Any) -> bool:
    return isinstance(value, nnx.Pytree) or is_equinox(value)


def _copied(arguments: Any) -> Any:
    if any(isinstance(leaf, nnx.Pytree) for leaf in jax.tree.leaves(arguments, is_leaf=_is_model)):
        return nnx.clone(arguments)
    return arguments


class _Mode:
    """Evaluation mode, and whether a layer depends on it."""

    def __init__(self) -> None:
        self.matters = False

    def evaluating(self, value: Any) -> Any:
        """Returns a model in evaluation mode; an NNX model is changed."""
        if isinstance(value, nnx.Module):
            value.eval()
            for _, module in nnx.iter_modules(value):
                self.matters |= any(hasattr(module, mode) for mode in _MODES)
                object.__setattr__(module, "__class__", _evaluating_class(type(module)))
        elif is_equinox(value):
            modules = [value, *equinox_modules(value).values()]
            modes = [module.inference for module in modules if hasattr(module, "inference")]
            # Gradients and moments of a model have None there.
            if modes and all(isinstance(mode, bool) for mode in modes):
                self.matters = True
                return sys.modules["equinox"].nn.inference_mode(value)
        return value

    def linen_call(self, next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        mode = next((mode for mode in _MODES if hasattr(module, mode)), None)
        if mode is None or context.method_name != "__call__":
            return next_call(*args, **kwargs)
        self.matters = True
        if mode in kwargs:
            return next_call(*args, **kwargs | {mode: True})
        if len(args) > 1 and isinstance(args[1], bool):
            return next_call(args[0], True, *args[2:], **kwargs)
        before = getattr(module, mode)
        object.__setattr__(module, mode, True)
        try:
            return next_call(*args, **kwargs)
        finally:
            object.__setattr__(module, mode, before)

    def haiku_call(self, next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        haiku = sys.modules["haiku"]
        if isinstance(context.module, haiku.BatchNorm) and context.method_name == "__call__":
            self.matters = True
            if "is_training" in kwargs:
                return next_call(*args, **kwargs | {"is_training": False})
            return next_call(args[0], False, *args[2:], **kwargs)
        return next_call(*args, **kwargs)


@cache
def _evaluating_class(cls: type) -> type:
    """Returns a subclass of an NNX module that stays in evaluation mode."""
    body: dict[str, Any] = {name: getattr(cls, name) for name in ("__module__", "__qualname__")}
    body |= {"train": _nothing, "set_attributes": _nothing}
    for base, mode in ((nnx.BatchNorm, _MODES[0]), (nnx.Dropout, _MODES[1])):
        if issubclass(cls, base):
            body["__call__"] = _method_with(cls, mode)
    return type(cls)(cls.__name__, (cls,), body)


def _nothing(self: nnx.Module, *args: Any, **kwargs: Any) -> None:
    """Keeps the mode."""


def _method_with(cls: Any, mode: str) -> Callable[..., Any]:
    def call(self: nnx.Module, x: Any, *args: Any, **kwargs: Any) -> Any:
        given = args[1:] if args and isinstance(args[0], bool | None) else args
        return cls.__call__(self, x, *given, **kwargs | {mode: True})

    return call
