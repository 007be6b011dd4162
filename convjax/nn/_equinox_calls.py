"""The calls of the layers of Equinox models while they are traced.

Equinox has no interception of calls, and its transforms and JAX's make new objects of a module,
which keep nothing but its class and fields. The methods of the classes of a model therefore report
while it is traced, to the captures of this thread alone. When a model is called, its modules get
their names, the paths in it. A module that is not part of a model that is being called, as one made
in a scan, has the name of the only module of its structure, or else that of its class.
"""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from types import FunctionType
from typing import Any

import jax

from convjax.nn._module_calls import LayerCalls, active_captures, is_float, reports, suffixed
from convjax.nn.selection import has_parameters

_lock = threading.RLock()  # all threads share the classes


def is_equinox(value: Any) -> bool:
    """Returns whether a value is a model of Equinox, and not a function in one of its transforms.

    It cannot be one where Equinox is not imported.
    """
    equinox = sys.modules.get("equinox")
    if equinox is None or not isinstance(value, equinox.Module):
        return False
    return not type(value).__module__.startswith("equinox._")


def equinox_modules(model: Any) -> dict[str, Any]:
    """Returns the modules of a model by name; the model itself, by its class, if it has parameters.

    Its own parameters are meant, not those of the modules in it.
    """
    found = dict(_modules(model, ()))
    found.pop("", None)
    own = {type(model).__name__: model} if has_parameters("", model) else {}
    return own | found


def _joined(prefix: str, name: str) -> str:
    return ".".join(filter(None, (prefix, name)))


def _modules(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if is_equinox(value):
        yield ".".join(path), value
        children: Any = vars(value).items()
    elif isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    else:
        return
    for key, child in children:
        yield from _modules(child, (*path, str(key)))


class _Names:
    """The names of modules by object, for one capture."""

    def __init__(self, calls: LayerCalls, models: dict[str, Any]):
        self.calls = calls
        self._prefixes = {type(model): prefix for prefix, model in models.items()}
        self._paths: list[tuple[Any, str]] = [
            (jax.tree.structure(module), _joined(prefix, name))
            for prefix, model in models.items()
            for name, module in _modules(model, ())
        ]
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []  # an object that is gone could leave its id to another

    def of(self, module: Any) -> str:
        if id(module) not in self._names:
            root = type(module) in self._prefixes
            prefix = self._prefixes[type(module)] if root else self._name_of_structure(module)
            self._kept.append(module)
            for name, inner in equinox_modules(module).items():
                own = inner is module and not root
                full = prefix if own else _joined(prefix, name)
                self._names.setdefault(id(inner), full)
            self._names.setdefault(id(module), "" if root else prefix)
        return self._names[id(module)]

    def _name_of_structure(self, module: Any) -> str:
        structure = jax.tree.structure(module)
        names = [name for other, name in self._paths if other == structure]
        return names[0] if len(names) == 1 else type(module).__name__


@contextmanager
def equinox_reporting(models: dict[str, Any], calls: LayerCalls) -> Iterator[None]:
    """Makes the classes of models report the calls of their objects.

    Args:
      models: by what stands before the names of their layers.
      calls: the capture they report to, which is active.
    """
    if not models:
        yield
        return
    classes = {type(module) for model in models.values() for _, module in _modules(model, ())}
    names = _Names(calls, models)
    with _lock:  # while the model is traced: one thread at a time captures Equinox models
        own = [(cls, method, vars(cls).get(method)) for cls in classes for method in _methods(cls)]
        reporting = [
            (cls, method, _reporting_method(getattr(cls, method), method, names))
            for cls, method, _ in own
        ]
        try:
            for cls, method, function in reporting:
                setattr(cls, method, function)
            yield
        finally:
            for cls, method, original in own:
                if original is None:  # a class that inherits a method must inherit it again
                    delattr(cls, method)
                else:
                    setattr(cls, method, original)


def _is_state(value: Any) -> bool:
    return isinstance(value, sys.modules["equinox"].nn.State)


def _methods(cls: type) -> list[str]:
    """Returns the names of the methods whose outputs are those of a layer."""
    bases = itertools.takewhile(lambda base: base.__name__ != "Module", cls.__mro__)
    functions = (item for base in bases for item in vars(base).items())
    return list({n: None for n, f in functions if isinstance(f, FunctionType) and reports(n)})


def _reporting_method(
    function: Callable[..., Any], method: str, names: _Names
) -> Callable[..., Any]:
    calls = names.calls

    @wraps(function)
    def reporting(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = partial(function, self, **kwargs)
        if calls not in active_captures():
            return call(*args)
        name = suffixed(names.of(self), method)
        owner = next(filter(is_float, vars(self).values()), None)

        def report(output: Any) -> Any:
            if isinstance(output, tuple) and len(output) == 2 and _is_state(output[1]):
                return calls.report(name, self, output[0], owner), output[1]
            return calls.report(name, self, output, owner)

        return calls.run(("equinox", id(self)), method, call, args, report)

    return reporting
