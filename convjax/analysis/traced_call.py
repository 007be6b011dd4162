"""The program of a model's call, with the outputs of its layers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from convjax.analysis.marked_calls import LayerCall, MarkedCalls
from convjax.analysis.model_call import ModelCall
from convjax.analysis.receptive_field import ReceptiveField, fields_of
from convjax.nn.selection import Select, predicate


@dataclass(frozen=True)
class TracedCall:
    """The program of a call.

    Attributes:
      model: the call.
      program: maps the arrays of the call to the outputs of layers and model; the operations of
        the layers are marked.
      outputs: the shapes of the program's results: those of each layer and those of the model.
      called: a call of each layer that was traced, by its name.
      names: of the layers whose outputs the program returns, in the order of the calls.
    """

    model: ModelCall
    program: ClosedJaxpr
    outputs: tuple[list[Any], list[Any]]
    called: Mapping[str, LayerCall]
    names: list[str]

    @property
    def layers(self) -> set[str]:
        """Names of the layers without the numbers of calls and depths."""
        return set(map(layer_of, self.names))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Output shapes of the layers.

        The first array of an output represents it: a recurrent cell returns several, which have
        the names "cell:0", "cell:1" and so on.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for name, output in zip(self.names, self.outputs[0], strict=True):
            shapes.setdefault(_of_call(name), tuple(output.shape))
        return shapes

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the first array of the model's output."""
        return tuple(self.outputs[1][0].shape) if self.outputs[1] else ()

    def fields(self) -> Mapping[str, ReceptiveField]:
        """Returns the receptive fields if the first input is a batch of images, else none."""
        shape = self.model.input_shape
        if len(shape) != 4 or 0 in shape:
            return {}
        found = fields_of(self.program, self.outputs, self.names, self.model.inputs[0], "NHWC")
        return {_of_call(name): field for name, field in reversed(found.items())}


def traced_call(model: ModelCall, select: Select) -> TracedCall:
    """Traces the call of a model.

    Args:
      model: the call.
      select: which layers' outputs to return.
    """
    calls, names = MarkedCalls(predicate(select)), list[str]()

    def call(*arrays: Any) -> tuple[list[Any], list[Any]]:
        output, layers = model.call(arrays, calls)
        names[:] = layers
        return list(layers.values()), output

    program, outputs = jax.make_jaxpr(call, return_shape=True)(*model.arrays)
    return TracedCall(model, program, outputs, calls.called, names)


def layer_of(name: str) -> str:
    """Returns the layer of a call: "layers.linear" of "layers[3].linear#2"."""
    return re.sub(r"\[\d+\]|:[^#]*|#\d+$", "", name)


def _of_call(name: str) -> str:
    """Returns the name of a call from that of one of its arrays: "cell#2" of "cell:0#2"."""
    return re.sub(r":[^#]*", "", name)
