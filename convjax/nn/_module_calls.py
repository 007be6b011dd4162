"""The calls of a model's layers, in Flax NNX, Linen, Haiku and Equinox, while it is traced.

Linen and Haiku report calls to interceptors. NNX and Equinox have no interception. There the
modules of a copy of the model get a subclass of their class whose methods report; the caller's
model and its classes stay as they are. `flax.nnx.capture(model, Variable, method_outputs=Variable)`
of Flax 0.12.8 was tried and left: it replaces methods of the classes themselves, for all threads,
loses the order of the calls, misses inherited methods, and adds Variables to the model, which
nnx.cond, nnx.RNN and many nnx.scan reject.
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax.extend.core import get_opaque_trace_state

from convjax.nn._harvest import Tag, tagged
from convjax.nn.selection import Predicate, has_parameters
from convjax.ops.layout import KERNEL_AXES, axis_of

# The attribute of a module in a copied NNX model: the level of the capture and the module's name.
_NAMES = "_convjax_names"
# The attribute of the subclasses that report.
_REPORTS = "_convjax_reports"

_active = threading.local()


@dataclass
class LayerCalls:
    """The layers of one capture whose calls are reported.

    Attributes:
      selects: the predicate of a layer's name and the module.
      level: number of captures around this one.
      seen: the names of all modules that were called.
      direct: outputs kept as they are instead of tagged; None where the call is traced.
      lost: names of the outputs that `direct` cannot hold, because they are inside a transform.
      order: of the keys of a mapping that the function returns beside its output.
      inputs: whether to keep the input of the network too: the first array of floats that the
        outermost call of a module gets.
    """

    selects: Predicate
    level: int = 0
    seen: dict[str, None] = field(default_factory=dict)
    direct: list[tuple[Tag, Any]] | None = None
    lost: dict[str, str] = field(default_factory=dict)
    order: list[str] | None = None
    inputs: bool = False
    _trace: Any = None
    _running: list[Any] = field(default_factory=list)
    _prefixes: list[str] = field(default_factory=list)

    def run(
        self,
        key: Any,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        report: Callable[[Any], Any],
    ) -> Any:
        """Calls a method of a module with its arguments and reports its output.

        A method that calls another of the same module, as `super().__call__` does, reports once.
        """
        if key in self._running:
            return call(*args)
        if self.inputs and not self._running:
            at = next((i for i, x in enumerate(args) if _is_float(x) and x.ndim), None)
            if at is not None:
                self.inputs = False
                args = (*args[:at], self.keep(Tag("input", "input"), args[at]), *args[at + 1 :])
        self._running.append(key)
        try:
            output = call(*args)
        finally:
            self._running.pop()
        return report(output)

    def report(self, name: str, module: Any, output: Any, owner: Any) -> Any:
        """Returns the output of a module, tagged if it is selected."""
        if not name:  # the model itself, whose output is that of the call
            return output
        name = ".".join([*self._prefixes, name])
        self.seen[name] = None
        if not self.selects(name, module):
            return output
        leaves, structure = jax.tree_util.tree_flatten_with_path(output)
        if len(leaves) == 1 and not leaves[0][0]:
            return self._tag(name, module, output, owner) if _is_real(output) else output
        # The arrays of a tuple or tree; its integers are states and indices.
        return jax.tree.unflatten(
            structure,
            [
                self._tag(f"{name}:{_path_text(path)}", module, x, owner) if _is_float(x) else x
                for path, x in leaves
            ],
        )

    def _tag(self, name: str, module: Any, x: Any, owner: Any) -> Any:
        return self.keep(Tag(name, channel_axis=_channel_axis(module, x)), x, owner)

    def keep(self, tag: Tag, x: Any, owner: Any = None) -> Any:
        """Returns a value that has been tagged for this capture."""
        tag = replace(tag, level=self.level)
        if self.direct is None:
            return tagged(x, tag, owner)
        if self._trace == _trace_state():
            self.direct.append((tag, x))
        elif tag.kind == "layer":
            self.lost[tag.name] = "a transform"
        return x

    @contextmanager
    def prefixed(self, name: str) -> Iterator[None]:
        """Puts the name of a module before those of the modules inside it."""
        self._prefixes += [name] if name else []
        try:
            yield
        finally:
            del self._prefixes[len(self._prefixes) - bool(name) :]

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Makes this the innermost capture of the thread, and intercepts Linen and Haiku."""
        stack = _stack()
        self.level, self._trace = len(stack), _trace_state()
        stack.append(self)
        try:
            with ExitStack() as contexts:
                contexts.enter_context(linen.intercept_methods(partial(_linen_call, self)))
                if haiku := sys.modules.get("haiku"):
                    contexts.enter_context(haiku.intercept_methods(partial(_haiku_call, self)))
                yield
        finally:
            stack.pop()


def _stack() -> list[LayerCalls]:
    if not hasattr(_active, "stack"):
        _active.stack = []
    return _active.stack  # type: ignore[no-any-return]


def _trace_state() -> Any:
    return get_opaque_trace_state(convention="flax")


def _is_real(x: Any) -> bool:
    return (
        isinstance(x, jax.Array)
        and jnp.issubdtype(x.dtype, jnp.number)
        and not (jnp.issubdtype(x.dtype, jnp.complexfloating))
    )


def _is_float(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)


def _path_text(path: Any) -> str:
    return ":".join(jax.tree_util.keystr((key,), simple=True) for key in path)


def _channel_axis(module: Any, x: Any) -> int:
    """Returns the negative axis of the channels in an output: the last, where nothing else holds.

    A convjax layer in a layout, a Haiku layer with a data format and an Equinox convolution or
    pooling, which takes one example, have it elsewhere.
    """
    layout = getattr(module, "layout", None)
    if isinstance(layout, str) and layout in KERNEL_AXES:
        return axis_of("C", layout) - 4 if x.ndim == 4 else -1
    formatted = getattr(module, "data_format", None)
    if isinstance(formatted, str) and formatted.startswith("NC"):
        return 1 - x.ndim
    equinox = sys.modules.get("equinox")
    if equinox and isinstance(module, equinox.Module):
        spatial = getattr(module, "num_spatial_dims", None)
        if isinstance(spatial, int):
            return -spatial - 1
        if isinstance(module, equinox.nn.BatchNorm | equinox.nn.GroupNorm | equinox.nn.PReLU):
            return -x.ndim
    return -1


# A method whose output is that of a layer: a public one that does not make an initial state.
def _reports(method: str) -> bool:
    others = method.startswith(("_", "init")) or method in ("setup", "params_dict", "state_dict")
    return method == "__call__" or not others


def _suffixed(name: str, method: str) -> str:
    return name if method == "__call__" else f"{name}.{method}" if name else method


def _linen_call(
    calls: LayerCalls,
    next_call: Any,
    args: Any,
    kwargs: Any,
    context: linen.module.InterceptorContext,
) -> Any:
    module, method = context.module, context.method_name
    if not _reports(method) or module.scope is None:
        return next_call(*args, **kwargs)
    name = _suffixed(".".join(module.path) or type(module).__name__, method)

    def report(output: Any) -> Any:
        owner = next(iter(jax.tree.leaves(module.variables.get("params", {}))), None)
        if not module.path and not has_parameters(name, module):
            return output  # the model itself, whose output is that of `capture`
        return calls.report(name, module, output, owner)

    key = ("linen", id(module.scope.root), module.path)
    return calls.run(key, partial(next_call, **kwargs), args, report)


def _haiku_call(calls: LayerCalls, next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module, method = context.module, context.method_name
    if not _reports(method):
        return next_call(*args, **kwargs)
    name = _suffixed(re.sub(r"/(~\w*/)?", ".", module.module_name), method)

    def report(output: Any) -> Any:
        owner = next(iter(jax.tree.leaves(module.params_dict())), None)
        return calls.report(name, module, output, owner)

    return calls.run(("haiku", name), partial(next_call, **kwargs), args, report)


def named_modules(model: Any) -> dict[str, Any]:
    """Returns the modules of an NNX or Equinox model by name, the model itself as its class."""
    if isinstance(model, nnx.Module):
        found = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    else:
        found = dict(_equinox_modules(model, ()))
    root = found.pop("", None)
    # The model itself counts only with parameters of its own.
    if root is not None and has_parameters("", root):
        found = {type(root).__name__: root} | found
    return found


def _equinox_modules(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if is_equinox(value):
        yield ".".join(path), value
        children = vars(value).items()
    elif isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)  # type: ignore[assignment]
    else:
        return
    for key, child in children:
        yield from _equinox_modules(child, (*path, str(key)))


def is_equinox(value: Any) -> bool:
    """Returns whether a value is a model of Equinox, and not a function in one of its transforms.

    It cannot be one where Equinox is not imported.
    """
    equinox = sys.modules.get("equinox")
    if equinox is None or not isinstance(value, equinox.Module):
        return False
    return not type(value).__module__.startswith("equinox._")


def make_reporting(model: Any, calls: LayerCalls, prefix: str = "") -> None:
    """Makes the modules of a copied NNX or Equinox model report their calls.

    Args:
      model: a copy; its modules get other classes.
      calls: the capture they report to.
      prefix: put before the names, where several models are arguments of one function.
    """
    for name, module in ({"": model} | named_modules(model)).items():
        if not name and has_parameters("", module):
            continue  # it has the name of its class
        full = f"{prefix}.{name}" if prefix and name else name
        _set_names(module, (*getattr(module, _NAMES, ()), (calls.level, full)))


def remove_reporting(model: Any, calls: LayerCalls) -> None:
    """Ends the reports of the modules of an NNX or Equinox model to one capture."""
    nnx_model = isinstance(model, nnx.Module)
    modules = nnx.iter_modules(model) if nnx_model else _equinox_modules(model, ())
    for _, module in modules:
        names = getattr(module, _NAMES, ())
        _set_names(module, tuple(pair for pair in names if pair[0] != calls.level))


def _set_names(module: Any, names: tuple[tuple[int, str], ...]) -> None:
    """Makes a module report by these names at the levels of captures; by none, not at all."""
    plain = _plain(type(module))
    in_attribute = isinstance(module, nnx.Module) and not isinstance(module, nnx.bridge.ToNNX)
    if in_attribute:
        vars(module).pop(_NAMES, None)
        if names:
            object.__setattr__(module, _NAMES, names)
    reporting = _reporting_class(plain, () if in_attribute else names) if names else plain
    object.__setattr__(module, "__class__", reporting)


def _plain(cls: type) -> type:
    return cls.__mro__[1] if _REPORTS in vars(cls) else cls


@cache
def _reporting_class(cls: type, names: tuple[tuple[int, str], ...]) -> type:
    """Returns a subclass whose methods report their outputs.

    Args:
      cls: of the module.
      names: of the module with the levels of the captures. An NNX module has them in an attribute,
        which the transforms of NNX copy. An Equinox module has not, because those of JAX copy its
        class and fields alone, nor ToNNX, which takes its attributes for those of a Linen module.
    """
    if _REPORTS in vars(cls):
        return cls
    methods: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__module__.split(".")[0] in ("builtins", "equinox") and base.__name__ == "Module":
            break
        if base in (nnx.Module, nnx.Pytree, object):
            break
        for method, function in vars(base).items():
            other = not callable(function) or isinstance(
                function, type | staticmethod | classmethod
            )
            if not other and _reports(method) and method not in methods:
                methods[method] = _reporting_method(getattr(cls, method), method)
    same = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    body = {**same, **methods, _REPORTS: True}
    if names:
        body[_NAMES] = names
    return type(cls)(cls.__name__, (cls,), body)


def _reporting_method(function: Callable[..., Any], method: str) -> Callable[..., Any]:
    @wraps(function)
    def reporting(self: Any, *args: Any, **kwargs: Any) -> Any:
        call: Callable[..., Any] = partial(function, self, **kwargs)
        for level, name in getattr(self, _NAMES, ()):
            stack = _stack()
            if level < len(stack):
                call = partial(_reported, stack[level], self, _suffixed(name, method), call)
        return call(*args)

    return reporting


def _reported(
    calls: LayerCalls, module: Any, name: str, call: Callable[..., Any], *args: Any
) -> Any:
    if isinstance(module, nnx.bridge.ToNNX):  # its Linen modules report themselves
        with calls.prefixed(name):
            return call(*args)
    owner = next(
        (
            v.get_value() if isinstance(v, nnx.Variable) else v
            for v in vars(module).values()
            if isinstance(v, nnx.Param) or (not isinstance(module, nnx.Module) and _is_float(v))
        ),
        None,
    )
    return calls.run(
        (type(module), id(module)),
        call,
        args,
        lambda output: calls.report(name, module, output, owner),
    )
