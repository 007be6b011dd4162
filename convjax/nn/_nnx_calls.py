"""The calls of the layers of a Flax NNX model while it is traced.

NNX has no interception of calls. The modules of a copy of the model get a subclass of their class,
whose methods report; the caller's model and its classes stay as they are, also for other threads.
`flax.nnx.capture(model, Variable, method_outputs=Variable)` of Flax 0.12.8 was tried and left: it
replaces methods of the classes themselves, loses the order of the calls, misses inherited methods,
and adds Variables to the model, which nnx.cond, nnx.RNN and many nnx.scan reject.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from typing import Any

import jax
from flax import nnx

from convjax.nn._module_calls import LayerCalls, active_captures, reports, suffixed
from convjax.nn.selection import has_parameters, numbered

_own: dict[str, Callable[..., Any]] = {
    name: getattr(nnx, name) for name in ("merge", "split", "graphdef")
}
_lock, _merging = threading.Lock(), threading.local()
_users = 0

# The attribute of a module in a copied model: the levels of the captures and its names in them. The
# transforms of NNX copy it with the module.
_NAMES = "_convjax_names"
# The attribute of the subclasses that report.
_REPORTS = "_convjax_reports"


def nnx_modules(model: nnx.Module) -> dict[str, nnx.Module]:
    """Returns the modules of a model by name; the model itself, by its class, if it has parameters.

    Its own parameters are meant, not those of the modules in it.
    """
    found = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    found.pop("", None)
    own = {type(model).__name__: model} if has_parameters("", model) else {}
    return own | found


def make_reporting(model: nnx.Module, calls: LayerCalls, prefix: str = "") -> None:
    """Makes the modules of a copied model report their calls.

    Args:
      model: a copy; its modules get other classes.
      calls: the capture they report to.
      prefix: put before the names, where several models are arguments of one function.
    """
    modules = nnx_modules(model)
    if all(module is not model for module in modules.values()):
        modules = {"": model} | modules
    for name, module in modules.items():
        full = f"{prefix}.{name}" if prefix and name else name
        _set_names(module, (*getattr(module, _NAMES, ()), (calls.level, full)))


def remove_reporting(model: nnx.Module, calls: LayerCalls) -> None:
    """Ends the reports of the modules of a model to one capture."""
    for _, module in nnx.iter_modules(model):
        names = getattr(module, _NAMES, ())
        _set_names(module, tuple(pair for pair in names if pair[0] != calls.level))


@contextmanager
def on_merge(call: Callable[[nnx.Module], Any]) -> Iterator[None]:
    """Calls a function with each model that this thread gets from `nnx.merge`.

    Loops of split state merge their models in the step. The structures that they get from
    `nnx.split` and `nnx.graphdef` may leave the step, and have nothing of ours.
    """
    global _users
    if not getattr(_merging, "calls", ()):
        _merging.calls, _merging.split = [], []
    _merging.calls = [*_merging.calls, call]
    with _lock:
        _users += 1
        nnx.merge, nnx.split, nnx.graphdef = _merge, _split, _graphdef
    try:
        yield
    finally:
        _merging.calls = _merging.calls[:-1]
        if not _merging.calls:
            _merging.split = []  # the structures of the step are not kept after it
        with _lock:
            _users -= 1
            if not _users:
                for name, function in _own.items():
                    setattr(nnx, name, function)


@wraps(nnx.merge)
def _merge(graphdef: Any, *args: Any, **kwargs: Any) -> Any:
    merged = _own["merge"](graphdef, *args, **kwargs)
    if calls := getattr(_merging, "calls", ()):
        # The very structure of a split, or else the last that equals it.
        known = [names for graph, names in _merging.split if graph is graphdef]
        known = known or [names for graph, names in _merging.split if graph == graphdef]
        for module, names in zip(_modules_in(merged), known[-1] if known else (), strict=False):
            _set_names(module, names)
        for model in _models_in(merged):
            for call in calls:
                call(model)
    return merged


@wraps(nnx.split)
def _split(node: Any, *filters: Any, **kwargs: Any) -> Any:
    with _without_names(node) as names:
        result = _own["split"](node, *filters, **kwargs)
    if any(names):
        _merging.split.append((result[0], names))
    return result


@wraps(nnx.graphdef)
def _graphdef(node: Any, *args: Any, **kwargs: Any) -> Any:
    with _without_names(node) as names:
        graph = _own["graphdef"](node, *args, **kwargs)
    if any(names):
        _merging.split.append((graph, names))
    return graph


@contextmanager
def _without_names(node: Any) -> Iterator[list[tuple[tuple[int, str], ...]]]:
    """Takes the names from the modules in a tree for a while; they are those of this thread."""
    modules = _modules_in(node) if getattr(_merging, "calls", ()) else []
    names = [getattr(module, _NAMES, ()) for module in modules]
    for module in modules:
        _set_names(module, ())
    try:
        yield names
    finally:
        for module, of_module in zip(modules, names, strict=True):
            _set_names(module, of_module)


def _models_in(tree: Any) -> list[nnx.Module]:
    leaves = jax.tree.leaves(tree, is_leaf=lambda value: isinstance(value, nnx.Module))
    return [leaf for leaf in leaves if isinstance(leaf, nnx.Module)]


def _modules_in(tree: Any) -> list[nnx.Module]:
    """Returns the modules in a tree, in an order that a split and a merge keep."""
    return [module for model in _models_in(tree) for _, module in nnx.iter_modules(model)]


def make_merged_reporting(model: nnx.Module, calls: LayerCalls) -> None:
    """Makes the modules of a merged model report their calls, unless they do."""
    if not any(level == calls.level for level, _ in getattr(model, _NAMES, ())):
        make_reporting(model, calls, _merged_name(model, calls))


def _merged_name(model: nnx.Module, calls: LayerCalls) -> str:
    """Returns what stands before the names of a model: nothing for the first of a step."""
    graph = nnx.graphdef(model)
    known = next((prefix for prefix, other in calls.named.items() if other == graph), None)
    if known is not None:
        return known
    prefix = numbered(type(model).__name__, calls.named) if calls.named else ""
    calls.named[prefix] = graph
    return prefix


def _set_names(module: nnx.Module, names: tuple[tuple[int, str], ...]) -> None:
    """Makes a module report by these names at the levels of captures; by none, not at all."""
    cls = type(module)
    plain = cls.__mro__[1] if _REPORTS in vars(cls) else cls
    # ToNNX takes its attributes for those of a Linen module: its class has the names.
    in_class = isinstance(module, nnx.bridge.ToNNX)
    vars(module).pop(_NAMES, None)
    if names and not in_class:
        object.__setattr__(module, _NAMES, names)
    reporting = _reporting_class(plain, names if in_class else ()) if names else plain
    object.__setattr__(module, "__class__", reporting)


@cache
def _reporting_class(cls: type, names: tuple[tuple[int, str], ...]) -> type:
    """Returns a subclass of the same name whose methods report their outputs."""
    methods: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in (nnx.Module, nnx.Pytree, object):
            break
        for method, function in vars(base).items():
            other = isinstance(function, type | staticmethod | classmethod)
            if callable(function) and not other and reports(method) and method not in methods:
                methods[method] = _reporting_method(getattr(cls, method), method)
    same = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    body = {**same, **methods, _REPORTS: True} | ({_NAMES: names} if names else {})
    return type(cls)(cls.__name__, (cls,), body)


def _reporting_method(function: Callable[..., Any], method: str) -> Callable[..., Any]:
    @wraps(function)
    def reporting(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        call: Callable[..., Any] = partial(function, self, **kwargs)
        for level, name in getattr(self, _NAMES, ()):
            if level < len(active_captures()):
                calls = active_captures()[level]
                call = partial(_reported, calls, self, name, method, call)
        return call(*args)

    return reporting


def _reported(
    calls: LayerCalls,
    module: nnx.Module,
    name: str,
    method: str,
    call: Callable[..., Any],
    *args: Any,
) -> Any:
    if isinstance(module, nnx.bridge.ToNNX):  # its Linen modules report themselves
        with calls.prefixed(name):
            return call(*args)
    parameters = (v.get_value() for v in vars(module).values() if isinstance(v, nnx.Param))
    owner = next(parameters, None)
    return calls.run(
        (type(module), id(module)),
        method,
        call,
        args,
        lambda output: calls.report(suffixed(name, method), module, output, owner),
    )
