"""Named intermediate outputs of a Flax model or a function, without a change to it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from flax import linen, nnx
from flax.core.scope import in_filter, union_filters
from flax.errors import TraceContextError

from convjax.nn.selection import Select, has_parameters, matcher, nothing_selected
from convjax.ops.layout import KERNEL_AXES, axis_of

# Watching replaces `__call__` on classes, which all threads share.
_lock = threading.RLock()


# Attributes of the selected modules while they are watched.
_MARK, _OUTPUT = "_convjax_name", "_convjax_output"


class Captured(nnx.Variable[Any]):
    """The outputs of a layer that a transform within the model calls, while it is watched."""


def layer_names(model: nnx.Module, select: Select = has_parameters) -> dict[str, nnx.Module]:
    """Returns the selected modules by name, the path with dots: "blocks.0.conv".

    Raises:
      ValueError: if nothing is selected; the message lists what there is.
      TypeError: as `convjax.nn.selection.matcher`.
    """
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path}
    selects = matcher(select)
    chosen = {name: module for name, module in modules.items() if selects(name, module)}
    if not chosen:
        raise nothing_selected(type(model).__name__, sorted(modules))
    return chosen


def capture(
    model: Any, *args: Any, select: Select = has_parameters, **kwargs: Any
) -> tuple[Any, dict[str, jax.Array]]:
    """Calls a model and returns its output together with those of its layers.

    It works inside jit, grad, scan and vmap, because it only keeps the values that the forward
    pass makes anyway; those that nobody uses are dropped by the compiler.

    Args:
      model: called with `args` and `kwargs`. A Flax NNX module; a Flax Linen module, whose first
        argument is then its variables, as for `apply`, which also takes `rngs` and `mutable`; or a
        function that returns its output and a mapping of named values.
      select: which layers to keep, see `convjax.nn.selection.Select`. The default keeps the modules with
        parameters of their own, so that in convolution, ReLU the output before the ReLU is seen, as
        with fastai's ActivationStats.

    Returns:
      (output, {name: output of that module}), in the order of the calls. A module called again
      adds "name#2", "name#3" and so on; layers that nnx.scan or nnx.vmap calls have its axis.
      Where Linen's `mutable` is given, the output is a pair with the changed variables, as that of
      `apply`.

    Raises:
      ValueError: if nothing is selected, no selected layer is called, or the output of a selected
        layer of Linen does not leave a transform.
      TypeError: for a model of another kind, or as `convjax.nn.selection.matcher`.
    """
    if isinstance(model, nnx.Module):
        return _capture_nnx(model, args, kwargs, select)
    if isinstance(model, linen.Module):
        return _capture_linen(model, args, kwargs, matcher(select))
    if isinstance(model, type):
        raise TypeError(
            f"model must be a Flax module or a function, got the class {model.__name__}. Make one "
            "of it first."
        )
    if not callable(model):
        raise TypeError(f"model must be a Flax module or a function, got {type(model).__name__}.")
    return _capture_named(model, args, kwargs, matcher(select))


def channel_axes(model: Any, outputs: Mapping[str, jax.Array]) -> dict[str, int]:
    """Returns the axis of the channels in each output of a layer.

    It is the last, as everywhere in Flax, but for maps of this project's layers in another layout.

    Args:
      outputs: by name, as `capture` returns them.
    """
    layouts: dict[str, Any] = {}
    if isinstance(model, nnx.Module):
        modules = nnx.iter_modules(model)
        layouts = {".".join(map(str, p)): getattr(m, "layout", None) for p, m in modules}

    def axis(name: str, output: jax.Array) -> int:
        layout = layouts.get(name.split("#")[0])
        if isinstance(layout, str) and layout in KERNEL_AXES and output.ndim == 4:
            return axis_of("C", layout)
        return -1

    return {name: axis(name, output) for name, output in outputs.items()}


def _capture_nnx(
    model: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any], select: Select
) -> tuple[Any, dict[str, jax.Array]]:
    chosen = layer_names(model, select)
    names = {id(module): name for name, module in chosen.items()}
    found: dict[str, Any] = {}
    within: dict[str, list[str]] = {}  # calls within a transform, by layer

    def keep(module: nnx.Module, output: Any) -> None:
        name = names.get(id(module))
        if name is not None:
            found[_numbered(name, found)] = output
        elif (name := getattr(module, _MARK, None)) in chosen:
            # A copy, which a transform calls, such as nnx.remat: its output would not leave the
            # transform by itself, but a module's variables do.
            call = _numbered(name, found)
            found[call] = None
            within.setdefault(name, []).append(call)
            setattr(module, f"{_OUTPUT}{len(_outputs(module))}", Captured(output))

    _lock.acquire()  # marks and watched classes are shared by all threads
    try:
        _mark(chosen)
        with _watched({type(module) for module in chosen.values()}, keep):
            output = model(*args, **kwargs)
        for name, calls in within.items():
            outputs = _outputs(chosen[name])
            for call in calls[len(outputs) :]:  # a transform may trace more calls than it makes
                del found[call]
            found |= {call: v.get_value() for call, v in zip(calls, outputs.values(), strict=False)}
    finally:
        for module in chosen.values():
            for attribute in [_MARK, *_outputs(module)]:
                if hasattr(module, attribute):
                    delattr(module, attribute)
        _lock.release()
    if not found:
        raise ValueError(
            f"none of the selected layers was called, or a transform keeps their outputs: "
            f"{', '.join(chosen)}. In nnx.scan and nnx.vmap the axes of a model's state must not "
            "leave out its Variables."
        )
    return output, found


def _mark(chosen: Mapping[str, nnx.Module]) -> None:
    """Lets copies of modules know their names."""
    for name, module in chosen.items():
        try:
            setattr(module, _MARK, name)
        except TraceContextError:  # a model from outside the trace, whose state is not to change
            return


def _outputs(module: nnx.Module) -> dict[str, Captured]:
    """Returns what calls within transforms have left in a module."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Captured)}


def _capture_linen(
    model: linen.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    selects: Callable[[str, Any], bool],
) -> tuple[Any, dict[str, jax.Array]]:
    mutable = kwargs.pop("mutable", False)
    chosen: list[tuple[str, ...]] = []
    others: set[str] = set()

    def keep(module: linen.Module, method: str) -> bool:
        """Tells Linen what to keep; it asks at the end of each call."""
        if method != "__call__" or not module.path:
            return False
        name = ".".join(module.path)
        if not selects(name, module):
            others.add(name)
            return False
        chosen.append(module.path)
        return True

    if args and isinstance(args[0], Mapping):
        # Linen would add to what an earlier call has kept there.
        variables = {name: value for name, value in args[0].items() if name != "intermediates"}
        args = (variables, *args[1:])
    output, changed = model.apply(
        *args,
        **kwargs,
        capture_intermediates=keep,
        mutable=union_filters(mutable, "intermediates"),
    )
    if not chosen:
        raise nothing_selected(type(model).__name__, sorted(others))
    changed = dict(changed)
    kept = changed.pop("intermediates", {})
    found: dict[str, jax.Array] = {}
    calls: dict[tuple[str, ...], int] = {}
    for path in chosen:
        outputs = _at(kept, path)
        call = calls[path] = calls.get(path, -1) + 1
        if call < len(outputs):  # a transform may ask more often than it calls
            found[_numbered(".".join(path), found)] = outputs[call]
    lost = sorted({".".join(path) for path in chosen} - set(found))
    if lost:
        raise ValueError(
            f"the outputs of {', '.join(lost)} do not leave a transform of Linen. nn.scan and "
            'nn.vmap take variable_axes={"intermediates": 0}; those of nn.cond and nn.RNN cannot '
            "be watched: leave them out by `select`."
        )
    if in_filter(mutable, "intermediates"):  # what the model sows itself is the caller's
        changed["intermediates"] = _without_calls(kept)
    return (output if mutable is False else (output, changed)), found


def _at(kept: Any, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Returns what Linen kept of the calls of a module, nothing where a transform let none out."""
    for part in path:
        kept = kept.get(part, {})
    return tuple(kept.get("__call__", ()))


def _without_calls(kept: Any) -> Any:
    if not isinstance(kept, Mapping):
        return kept
    return {name: _without_calls(value) for name, value in kept.items() if name != "__call__"}


def _capture_named(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    selects: Callable[[str, Any], bool],
) -> tuple[Any, dict[str, jax.Array]]:
    result = model(*args, **kwargs)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise TypeError(
            "model, a function, must return a pair of its output and a mapping of named values, "
            f"got {type(result).__name__}."
        )
    output, values = result
    found = {name: value for name, value in values.items() if selects(name, None)}
    if not found:
        raise nothing_selected(getattr(model, "__name__", repr(model)), list(values))
    return output, found


def _numbered(name: str, found: Mapping[str, Any]) -> str:
    """Returns "name", or "name#2" and so on for a layer that was called before."""
    call = 1
    while (numbered := name if call == 1 else f"{name}#{call}") in found:
        call += 1
    return numbered


@contextmanager
def _watched(classes: set[type], keep: Callable[[nnx.Module, Any], None]) -> Iterator[None]:
    """Lets every call of an instance of `classes` report its output while the context lasts."""

    def watching(cls: type, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            output = call(self, *args, **kwargs)
            if type(self) is cls:  # not where a watched subclass calls super().__call__
                keep(self, output)
            return output

        return wrapper

    with _lock:
        # vars, not getattr: a class that inherits its __call__ must go back to inheriting it.
        own = {cls: vars(cls).get("__call__") for cls in classes}
        watched = {cls: watching(cls, getattr(cls, "__call__")) for cls in classes}  # noqa: B004, B009
        try:
            for cls, wrapper in watched.items():
                setattr(cls, "__call__", wrapper)  # noqa: B010
            yield
        finally:
            for cls, original in own.items():
                if original is None:
                    delattr(cls, "__call__")
                else:
                    setattr(cls, "__call__", original)  # noqa: B010
