"""Marks the operations of each call of a layer in a traced program.

A call runs inside a `jax.named_scope`, which names its operations wherever they are: inside jit,
scan and other transforms.
"""

import itertools
import re
from typing import Any, NamedTuple

import jax

from convjax.nn._module_calls import LayerCalls
from convjax.nn.selection import Predicate


class LayerCall(NamedTuple):
    """One call of one layer.

    Attributes:
      layer: its name as `convjax.capture` reports it; "" for a model without parameters of its own.
      module: the name of the module: without a method as in "embed.attend"; "" for the model.
      kind: class of the module.
      number: of the call; unique in this process.
    """

    layer: str
    module: str
    kind: str
    number: int


_SCOPE = re.compile(r"convjax_call<(\d+)>")
_numbers = itertools.count(1)
# All calls of this process: JAX may reuse the trace of an inner function, which has the scopes of
# an earlier summary.
_calls: dict[int, LayerCall] = {}


class MarkedCalls(LayerCalls):
    """The layers of a call, each of which marks its operations.

    Attributes:
      called: a call of each layer that was traced, by its name.
    """

    def __init__(self, selects: Predicate):
        super().__init__(selects)
        self.called: dict[str, LayerCall] = {}
        self._reported: dict[Any, LayerCall] = {}  # the last call of each module

    def run(self, key: Any, *rest: Any) -> Any:
        """Calls a method of a module inside a scope."""
        *method, call, args, report = rest
        number, inner = next(_numbers), self._reported.get(key)

        def marked(*args: Any) -> Any:
            with jax.named_scope(f"convjax_call<{number}>"):
                return call(*args)

        def reported(output: Any) -> Any:
            self._number = number
            output = report(output)
            if number in _calls:
                self._reported[key] = _calls[number]
            return output

        run: Any = super().run
        output = run(key, *method, marked, args, reported)
        # Of a method and the `__call__` of the same module in it, only the latter reports.
        if number not in _calls and self._reported.get(key) is not inner:
            _calls[number] = self._reported[key]
        return output

    def report(self, name: str, module: Any, output: Any, owner: Any) -> Any:
        """Registers the call that has just ended."""
        layer = ".".join([*self._prefixes, name]) if name else name
        cls, (path, _, last) = type(module), layer.rpartition(".")
        if last != cls.__name__ and not hasattr(cls, last):  # no method of the module
            path = layer
        made = LayerCall(layer, path, cls.__name__, self._number)
        _calls[self._number] = self.called[layer] = made
        return super().report(name, module, output, owner)


def innermost_call(name_stack: Any) -> LayerCall | None:
    """Returns the innermost call of a layer among the scopes of an operation."""
    numbers = map(int, reversed(_SCOPE.findall(str(name_stack))))
    return next((_calls[number] for number in numbers if number in _calls), None)
