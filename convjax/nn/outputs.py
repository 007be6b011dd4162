"""The outputs of a model's layers, by name, with what is known of the layers."""

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax

# The captures whose outputs are still in use, by identity.
_live: weakref.WeakValueDictionary[int, "LayerOutputs"] = weakref.WeakValueDictionary()


class LayerKind(NamedTuple):
    """What a layer is.

    Attributes:
      module: the name of its class, such as "Conv"; "" if it is not known.
      nonlinearity: that follows it, such as "relu"; "" if none was recognised.
    """

    module: str = ""
    nonlinearity: str = ""


class LayerOutputs(dict[str, Any]):
    """A dictionary of the outputs of layers, in the order of their calls.

    It is a pytree. Unlike a plain dictionary, whose keys JAX sorts, it keeps its order through jit
    and grad, and it stores where the channels of each output are, and what each layer is.

    Args:
      outputs: by the layer's name.
      channel_axes: the axis of the channels of outputs where it is not the last, as a negative
        number.
      kinds: of the layers, where they are known.
      output: that of the whole network. It is not part of the pytree: only the trace that has
        computed it knows it.
      dropout_noise: the variance that the masks of dropout add to a signal of 1, those of a rate r
        of a half or more: the sum of r / (1 - r).

    Attributes:
      channel_axes, kinds, output, dropout_noise: as given.

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
        kinds: Mapping[str, LayerKind] | None = None,
        output: Any = None,
        dropout_noise: float = 0.0,
    ):
        super().__init__(outputs)
        self.channel_axes = dict(channel_axes or {})
        self.kinds = dict(kinds or {})
        self.output, self.dropout_noise = output, dropout_noise
        _live[id(self)] = self

    @classmethod
    def of(cls, outputs: Mapping[str, Any]) -> "LayerOutputs":
        """Returns a mapping with what is known of its layers.

        A plain dictionary into which captured outputs were unpacked, {"input": x, **outputs}, is
        recognised by the arrays in it.
        """
        if isinstance(outputs, cls):
            return outputs
        found = cls(outputs)
        # Without iteration over what other threads may change meanwhile: `valuerefs` is a list.
        for live in filter(None, [ref() for ref in _live.valuerefs()]):
            same = [n for n, x in outputs.items() if x is not None and live.get(n) is x]
            axes, kinds = live.channel_axes, live.kinds
            found.channel_axes |= {n: axes[n] for n in same if n in axes}
            found.kinds |= {n: kinds[n] for n in same if n in kinds}
            if same and live.output is not None:
                found.output = live.output
            if same:
                found.dropout_noise = max(found.dropout_noise, live.dropout_noise)
        return found

    def __or__(self, other: Mapping[str, Any]) -> "LayerOutputs":  # type: ignore[override]
        return self._merged(self, other)

    def __ror__(self, other: Mapping[str, Any]) -> "LayerOutputs":  # type: ignore[override]
        return self._merged(other, self)

    def __ior__(self, other: Mapping[str, Any]) -> "LayerOutputs":  # type: ignore[override]
        merged = self._merged(self, other)
        self.channel_axes, self.kinds = merged.channel_axes, merged.kinds
        self.output, self.dropout_noise = merged.output, merged.dropout_noise
        self.update(other)
        return self

    def copy(self) -> "LayerOutputs":
        """Returns a copy with the same arrays."""
        return LayerOutputs(self, self.channel_axes, self.kinds, self.output, self.dropout_noise)

    @staticmethod
    def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> "LayerOutputs":
        def known(attribute: str) -> dict[str, Any]:
            of_first = getattr(first, attribute, {}).items()
            kept = {name: value for name, value in of_first if name not in second}
            return kept | getattr(second, attribute, {})

        output = getattr(second, "output", None)
        output = getattr(first, "output", None) if output is None else output
        dropout_noise = max(getattr(of, "dropout_noise", 0.0) for of in (first, second))
        both = {**first, **second}
        return LayerOutputs(both, known("channel_axes"), known("kinds"), output, dropout_noise)


def _flatten_with_keys(outputs: LayerOutputs) -> tuple[Any, Any]:
    values, known = _flatten(outputs)
    keys = map(jax.tree_util.DictKey, outputs)
    return list(zip(keys, values, strict=True)), known


def _flatten(outputs: LayerOutputs) -> tuple[Any, Any]:
    known = outputs.channel_axes, outputs.kinds
    named = (tuple(of.items()) for of in known)
    return tuple(outputs.values()), (tuple(outputs), *named, outputs.dropout_noise)


def _unflatten(aux: Any, values: Iterable[Any]) -> LayerOutputs:
    names, axes, kinds, dropout_noise = aux
    pairs = zip(names, values, strict=True)
    return LayerOutputs(pairs, dict(axes), dict(kinds), dropout_noise=dropout_noise)


jax.tree_util.register_pytree_with_keys(LayerOutputs, _flatten_with_keys, _unflatten, _flatten)
