"""A model of any kind and its inputs as a function of arrays, which can be traced by shapes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convjax.analysis.model_variables import Variables, count, is_array
from convjax.nn._equinox_calls import is_equinox
from convjax.nn._module_calls import LayerCalls
from convjax.nn._traced_call import call_with_layers
from convjax.nn.outputs import LayerOutputs


@dataclass(frozen=True)
class ModelCall:
    """A call of a model as a function of its arrays.

    Attributes:
      name: class of the model, with the method if it is not `__call__`.
      model: the module or function.
      arrays: all arrays of the call, or their shapes: parameters and inputs.
      inputs: positions of the inputs among `arrays`.
      variables: what the model stores.
      call: maps (arrays, calls) to the arrays of the output and the outputs of the layers.
    """

    name: str
    model: Any
    arrays: list[Any]
    inputs: list[int]
    variables: Variables
    call: Callable[[Sequence[Any], LayerCalls], tuple[list[Any], LayerOutputs]]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input; () if there are keys alone."""
        return next(iter(self.input_shapes), ())

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs, in the order of the arguments."""
        return tuple(tuple(self.arrays[i].shape) for i in self.inputs)

    def parameters(self, layer: str) -> int:
        """Returns the number of parameters that a layer itself owns."""
        return count(self.variables.get((layer, "params"), {}))

    def scales(self, layer: str, kind: str) -> int:
        """Returns the size of a layer's scale, which Equinox's norms call weight."""
        owned = self.variables.get((layer, "params"), {})
        return count(owned.get("scale", owned.get("weight") if kind.endswith("Norm") else None))

    def total(self, kind: str) -> int:
        """Returns the number of all values of a kind."""
        return sum(count(found) for (_, of), found in self.variables.items() if of == kind)


class FlatTrees:
    """A list of trees as a list of arrays, and back."""

    def __init__(self, trees: Sequence[Any]):
        self.arrays: list[Any] = []
        self.starts: list[int] = []
        self._parts = []
        for tree in trees:
            self.starts.append(len(self.arrays))
            leaves, structure = jax.tree.flatten(tree)
            dynamic = [is_array(leaf) for leaf in leaves]
            self.arrays += [leaf for leaf, of in zip(leaves, dynamic, strict=True) if of]
            self._parts.append((leaves, dynamic, structure))

    def restored(self, arrays: Sequence[Any]) -> list[Any]:
        """Returns the trees with these arrays in them."""
        new = iter(arrays)
        return [
            jax.tree.unflatten(
                structure,
                [next(new) if of else leaf for leaf, of in zip(leaves, dynamic, strict=True)],
            )
            for leaves, dynamic, structure in self._parts
        ]

    def positions(self, index: int) -> list[int]:
        """Returns the positions of the arrays of one tree that hold data, not random keys."""
        end = [*self.starts, len(self.arrays)][index + 1]
        return [
            i
            for i in range(self.starts[index], end)
            if not jnp.issubdtype(self.arrays[i].dtype, jax.dtypes.prng_key)
        ]


def made(
    name: str,
    model: Any,
    stored: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    variables: Variables,
    function: Callable[[Any], tuple[Callable[..., Any], Sequence[Any]]],
) -> ModelCall:
    """Returns a call.

    Args:
      name, model, variables: as in `ModelCall`.
      stored: what the model stores.
      args, kwargs: the inputs.
      function: maps what the model stores to what is called, and its arguments before the inputs.
    """
    names = list(kwargs)
    flat = FlatTrees([stored, *args, *kwargs.values()])
    inputs = [
        position
        for i, value in enumerate([*args, *kwargs.values()], start=1)
        if not holds_model(value)  # models and nnx.Rngs
        for position in flat.positions(i)
    ]

    def call(arrays: Sequence[Any], calls: LayerCalls) -> tuple[list[Any], LayerOutputs]:
        first, *rest = flat.restored(arrays)
        called, before = function(first)
        named = dict(zip(names, rest[len(args) :], strict=True))
        output, layers = call_with_layers(called, (*before, *rest[: len(args)]), named, calls)
        outputs = layers.outputs
        if not outputs and not calls.seen and calls.order is not None:
            output, values = output  # a function that names its values
            outputs = LayerOutputs({n: values[n] for n in calls.order if calls.selects(n, None)})
        return _arrays_of(output), outputs

    return ModelCall(name, model, flat.arrays, inputs, variables, call)


def holds_model(value: Any) -> bool:
    """Returns whether an argument is a model, or `nnx.Rngs`, and no input."""
    return isinstance(value, nnx.Variable | nnx.Pytree) or is_equinox(value)


def _arrays_of(tree: Any) -> list[Any]:
    """Returns the arrays of an output, which may be of any structure."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf)]
