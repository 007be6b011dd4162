"""The calls of a model's layers while it is traced: those of Linen and Haiku by their interceptors.

NNX and Equinox have no interceptors, see `convjax.nn._nnx_calls` and `convjax.nn._equinox_calls`.
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax.extend.core import get_opaque_trace_state

from convjax.nn._harvest import Tag, tagged
from convjax.nn.selection import Predicate, has_parameters
from convjax.ops.layout import KERNEL_AXES, axis_of

_active = threading.local()


@dataclass
class _Running:
    """A call of a module's method that has not returned."""

    key: Any  # of the module
    method: str
    reports: bool = True


@dataclass(eq=False)
class LayerCalls:
    """The layers of one capture whose calls are reported.

    Attributes:
      selects: the predicate of a layer's name and the module.
      level: number of captures around this one.
      seen: the names of all modules that were called.
      direct: outputs kept as they are instead of tagged; None where the call is traced.
      lost: names of the outputs that `direct` cannot hold, because they are inside a transform.
      order: of the keys of a mapping that the function returns beside its output.
      inputs: whether to keep the input of the network too: the first positional array of floats
        that the outermost call of a module gets.
      reusable: whether JAX may use what it traced in an equal capture before, outside of jit. A
        capture that observes more than layers must see each call.
      named: what stands before the names of each NNX model, with the structure of a model that is
        merged during the call.
    """

    selects: Predicate
    level: int = 0
    seen: dict[str, None] = field(default_factory=dict)
    direct: list[tuple[Tag, Any]] | None = None
    lost: dict[str, str] = field(default_factory=dict)
    order: list[str] | None = None
    inputs: bool = False
    reusable: bool = True
    _awaits_input: bool = False
    named: dict[str, Any] = field(default_factory=dict)
    _trace: Any = None
    _running: list[_Running] = field(default_factory=list)
    _prefixes: list[str] = field(default_factory=list)

    def run(
        self,
        key: Any,
        method: str,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        report: Callable[[Any], Any],
    ) -> Any:
        """Calls a method of a module with its arguments and reports its output.

        A method that calls the same of the same module, as `super().__call__` does, reports once.
        Of a method and the `__call__` in it, `__call__` reports.
        """
        outer = next((running for running in self._running if running.key == key), None)
        if outer is not None:
            if outer.method == "__call__" or method != "__call__":
                return call(*args)
            outer.reports = False
        if self._awaits_input and not self._running:
            at = next((i for i, x in enumerate(args) if is_float(x) and x.ndim), None)
            if at is not None:
                self._awaits_input = False
                args = (*args[:at], self.keep(Tag("input", "input"), args[at]), *args[at + 1 :])
        running = _Running(key, method)
        self._running.append(running)
        try:
            output = call(*args)
        finally:
            self._running.pop()
        if running.reports:
            output = report(output)
        if not self._running and is_float(output):
            output = self.keep(Tag("output", "output"), output)
        return output

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
                self._tag(f"{name}:{_path_text(path)}", module, x, owner) if is_float(x) else x
                for path, x in leaves
            ],
        )

    def _tag(self, name: str, module: Any, x: Any, owner: Any) -> Any:
        axis, cls = _channel_axis(module, x), type(module).__name__
        return self.keep(Tag(name, channel_axis=axis, module=cls), x, owner)

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
        stack = active_captures()
        self.level, self._trace = len(stack), _trace_state()
        self._awaits_input = self.inputs
        stack.append(self)
        try:
            with ExitStack() as contexts:
                contexts.enter_context(linen.intercept_methods(partial(_linen_call, self)))
                if haiku := sys.modules.get("haiku"):
                    contexts.enter_context(haiku.intercept_methods(partial(_haiku_call, self)))
                yield
        finally:
            stack.pop()


def active_captures() -> list[LayerCalls]:
    """Returns the captures of this thread that have not ended, the outermost first."""
    if not hasattr(_active, "stack"):
        _active.stack = []
    return _active.stack


def _trace_state() -> Any:
    return get_opaque_trace_state(convention="flax")


def _is_real(x: Any) -> bool:
    return (
        isinstance(x, jax.Array)
        and jnp.issubdtype(x.dtype, jnp.number)
        and not (jnp.issubdtype(x.dtype, jnp.complexfloating))
    )


def is_float(x: Any) -> bool:
    """Returns whether a value is an array of real floating-point numbers."""
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
def reports(method: str) -> bool:
    """Returns whether the outputs of a method are those of a layer, and no initial state."""
    others = method.startswith(("_", "init")) or method in ("setup", "params_dict", "state_dict")
    return method == "__call__" or not others


def suffixed(name: str, method: str) -> str:
    """Returns the name of the outputs of a method: that of the layer for a call."""
    return name if method == "__call__" else f"{name}.{method}" if name else method


def _linen_call(
    calls: LayerCalls,
    next_call: Any,
    args: Any,
    kwargs: Any,
    context: linen.module.InterceptorContext,
) -> Any:
    module, method = context.module, context.method_name
    if not reports(method) or module.scope is None:
        return next_call(*args, **kwargs)
    name = suffixed(".".join(module.path) or type(module).__name__, method)

    def report(output: Any) -> Any:
        owner = next(iter(jax.tree.leaves(module.variables.get("params", {}))), None)
        if not module.path and not has_parameters(name, module):
            return output  # the model itself, whose output is that of `capture`
        return calls.report(name, module, output, owner)

    key = ("linen", id(module.scope.root), module.path)
    return calls.run(key, method, partial(next_call, **kwargs), args, report)


def _haiku_call(calls: LayerCalls, next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module, method = context.module, context.method_name
    if not reports(method):
        return next_call(*args, **kwargs)
    name = suffixed(re.sub(r"/(~\w*/)?", ".", module.module_name), method)

    def report(output: Any) -> Any:
        owner = next(iter(jax.tree.leaves(module.params_dict())), None)
        return calls.report(name, module, output, owner)

    key = ("haiku", module.module_name)
    return calls.run(key, method, partial(next_call, **kwargs), args, report)
