"""Capturing from NNX modules, by replacing `__call__` of their classes during the forward pass.

NNX offers no interception of calls. `flax.nnx.capture(model, Variable, method_outputs=Variable)`
of Flax 0.12.8 replaces methods of classes, too, and cannot carry the contract of
`convjax.capture`. Each of the following was observed with it, and the tests of `capture` cover it:

  - The outputs are stored by the path of the module. The order of the calls is lost, which the
    summary of a model and the receptive fields depend on.
  - Only a class's own methods are replaced: a class that inherits `__call__` is missed, and a
    subclass that calls `super().__call__` has two outputs for one call.
  - A module outside the model whose class is also in the model, or an `nnx.List` made during the
    forward pass or in another thread, raises ValueError: public methods of every class in the
    model, `nnx.List.append` among them, then store an output on instances that have no place for
    it. There is no lock.
  - A capture inside a capture ends the outer one, whose outputs are lost.
  - A model that the traced function closes over raises TraceContextError.
  - After an exception in the forward pass `__captures__` stays in the model, which then has
    another graph definition.

What is kept here from Flax's method is that outputs of calls inside a transform (nnx.remat,
nnx.scan, nnx.jit) leave it as Variables of the module.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flax import nnx
from flax.errors import TraceContextError

from convjax.nn.selection import Select, has_parameters, no_match_error, numbered, predicate

# All threads share the classes whose `__call__` is replaced.
_lock = threading.RLock()
_captures = itertools.count()


class Captured(nnx.Variable[Any]):
    """The output of a module that a transform inside the model calls, during a capture."""


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
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path}
    selects = predicate(select)
    chosen = {name: module for name, module in modules.items() if selects(name, module)}
    if not chosen:
        raise no_match_error(type(model).__name__, sorted(modules))
    return chosen


def capture_nnx(
    model: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any], select: Select
) -> tuple[Any, dict[str, Any]]:
    """Returns the output of an NNX model and those of its selected layers."""
    chosen = layer_names(model, select)
    names = {id(module): name for name, module in chosen.items()}
    # The attributes of this capture. Their names belong to it alone: nested captures do not
    # disturb each other, and a transform does not reuse the trace of an earlier capture, from
    # which no call would be reported here.
    prefix = f"_convjax_capture_{next(_captures)}_"
    name_attribute = prefix + "name"
    found: dict[str, Any] = {}
    in_transforms: dict[str, list[str]] = {}  # module name -> keys of `found`

    def keep(module: nnx.Module, output: Any) -> None:
        name = names.get(id(module))
        if name is not None:
            found[numbered(name, found)] = output
        elif (name := vars(module).get(name_attribute)) is not None:
            # A copy of the module, made by a transform such as nnx.remat. Its output may leave
            # the transform only as a Variable of the module.
            key = numbered(name, found)
            found[key] = None
            in_transforms.setdefault(name, []).append(key)
            setattr(module, f"{prefix}{len(_outputs(module, prefix))}", Captured(output))

    with _lock:
        try:
            for name, module in chosen.items():
                setattr(module, name_attribute, name)
        except TraceContextError:
            pass  # a model from outside the trace, which may not change: no transform can copy it
        try:
            with _replaced_calls({type(module) for module in chosen.values()}, keep):
                output = model(*args, **kwargs)
            for name, keys in in_transforms.items():
                outputs = _outputs(chosen[name], prefix)
                for key in keys[len(outputs) :]:  # a transform may trace more calls than it makes
                    del found[key]
                found |= {key: v.get_value() for key, v in zip(keys, outputs, strict=False)}
        finally:
            for module in chosen.values():
                for attribute in [a for a in vars(module) if a.startswith(prefix)]:
                    delattr(module, attribute)
    if not found:
        raise ValueError(
            "select must match a layer that the model calls and whose output leaves its "
            f"transforms, got {', '.join(chosen)}. In nnx.scan and nnx.vmap, the axes of a "
            "model's state must include all its Variables."
        )
    return output, found


def _outputs(module: nnx.Module, prefix: str) -> list[Captured]:
    """Returns the outputs that calls inside transforms have left in a module."""
    return [v for a, v in vars(module).items() if a.startswith(prefix) and isinstance(v, Captured)]


@contextmanager
def _replaced_calls(classes: set[type], keep: Callable[[nnx.Module, Any], None]) -> Iterator[None]:
    """Reports the output of every call of an instance of `classes` to `keep`."""

    def reporting(cls: type, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            output = call(self, *args, **kwargs)
            if type(self) is cls:  # not where a subclass calls super().__call__
                keep(self, output)
            return output

        return wrapper

    # vars, not getattr: a class that inherits its __call__ must inherit it again afterwards.
    own: Mapping[type, Any] = {cls: vars(cls).get("__call__") for cls in classes}
    wrappers = {cls: reporting(cls, getattr(cls, "__call__")) for cls in classes}  # noqa: B004, B009
    try:
        for cls, wrapper in wrappers.items():
            setattr(cls, "__call__", wrapper)  # noqa: B010
        yield
    finally:
        for cls, original in own.items():
            if original is None:
                delattr(cls, "__call__")
            else:
                setattr(cls, "__call__", original)  # noqa: B010
