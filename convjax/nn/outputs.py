"""The outputs of a model's layers, by name, with the axis of their channels."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax


class LayerOutputs(dict[str, Any]):
    """A dictionary of the outputs of layers, in the order of their calls.

    It is a pytree. Unlike a plain dictionary, whose keys JAX sorts, it keeps its order through jit
    and grad, and it stores where the channels of each output are.

    Args:
      outputs: by the layer's name.
      channel_axes: the axis of the channels of outputs where it is not the last, as a negative
        number.

    Attributes:
      channel_axes: as given.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from convjax.nn.outputs import LayerOutputs
      >>> outputs = LayerOutputs({"conv": jnp.ones((2, 3, 8, 8))}, {"conv": -3})
      >>> jax.jit(lambda outputs: outputs)(outputs).channel_axes
      {'conv': -3}
      >>> list({"input": jnp.ones(2)} | outputs), ({"input": jnp.ones(2)} | outputs).channel_axes
      (['input', 'conv'], {'conv': -3})
    """

    def __init__(
        self,
        outputs: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        channel_axes: Mapping[str, int] | None = None,
    ):
        super().__init__(outputs)
        self.channel_axes = dict(channel_axes or {})

    def __or__(self, other: Mapping[str, Any]) -> "LayerOutputs":  # type: ignore[override]
        return LayerOutputs({**self, **other}, self._axes_of(self, other))

    def __ror__(self, other: Mapping[str, Any]) -> "LayerOutputs":  # type: ignore[override]
        return LayerOutputs({**other, **self}, self._axes_of(other, self))

    def __ior__(self, other: Mapping[str, Any]) -> "LayerOutputs":  # type: ignore[override]
        self.channel_axes = self._axes_of(self, other)
        self.update(other)
        return self

    def copy(self) -> "LayerOutputs":
        """Returns a copy with the same arrays and axes."""
        return LayerOutputs(self, self.channel_axes)

    @staticmethod
    def _axes_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, int]:
        kept = {
            name: axis
            for name, axis in getattr(first, "channel_axes", {}).items()
            if name not in second
        }
        return kept | getattr(second, "channel_axes", {})


def _flatten_with_keys(outputs: LayerOutputs) -> tuple[Any, Any]:
    children = [(jax.tree_util.DictKey(name), value) for name, value in outputs.items()]
    return children, (tuple(outputs), tuple(outputs.channel_axes.items()))


def _flatten(outputs: LayerOutputs) -> tuple[Any, Any]:
    return tuple(outputs.values()), (tuple(outputs), tuple(outputs.channel_axes.items()))


def _unflatten(aux: Any, values: Iterable[Any]) -> LayerOutputs:
    names, axes = aux
    return LayerOutputs(zip(names, values, strict=True), dict(axes))


jax.tree_util.register_pytree_with_keys(LayerOutputs, _flatten_with_keys, _unflatten, _flatten)
