"""The non-linearity that follows each layer, recognised in the traced program."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from convjax.nn._harvest import inner_programs, layer_output_p, tags_of

# Operations that change a value's shape or name, or scale, shift, pool or drop it.
_LINEAR = (
    "add add_any broadcast_in_dim concatenate convert_element_type copy div mul name neg pad "
    "reduce_max reduce_sum reduce_window_max reduce_window_sum reshape select_n "
    "rev sharding_constraint slice split squeeze sub transpose"
)
# Calls of JAX and Flax that have the name of a non-linearity.
_NAMED = (
    "celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu log_sigmoid "
    "log_softmax mish prelu relu relu6 selu sigmoid silu softmax softplus squareplus swish tanh"
)
_PRIMITIVES = {"tanh": "tanh", "logistic": "sigmoid", "erf": "gelu", "erfc": "gelu"}
# What x·f(x) is, by the name of f.
_GATED = {"tanh": "gelu", "sigmoid": "silu"}


class _Value(NamedTuple):
    """Which layers' outputs a value is, before and after a non-linearity."""

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()


def nonlinearities(jaxpr: Jaxpr, level: int) -> dict[str, str]:
    """Returns the non-linearity after each tagged layer, by the layer's name.

    A layer whose output goes through another tagged layer first, such as a normalisation, has none
    of its own.

    Args:
      jaxpr: a program with tags.
      level: of the tags.
    """
    found: dict[str, str] = {}
    # A function without modules may name its values by jax.ad_checkpoint.checkpoint_name.
    names = not level and not any(tag.kind == "layer" for tag in tags_of(jaxpr, level))
    _walk(jaxpr, {}, level, found, names)
    return found


def _walk(
    jaxpr: Jaxpr,
    arguments: Mapping[Any, _Value],
    level: int,
    found: dict[str, str],
    names: bool,
) -> list[_Value]:
    """Adds the non-linearities of a program to `found`; returns what its results are."""
    values = dict(arguments)

    def of(atoms: Sequence[Any]) -> _Value:
        known = [values.get(atom, _Value()) for atom in atoms if isinstance(atom, Var)]
        return _Value(*(frozenset().union(*sets) for sets in zip(_Value(), *known, strict=True)))

    for equation in jaxpr.eqns:
        given, results = of(equation.invars), equation.outvars
        if equation.primitive is layer_output_p:
            tag = equation.params["tag"]
            own = tag.level == level and tag.kind == "layer"
            # The other arguments are the layer's parameters.
            values[results[0]] = _Value(frozenset({tag.name})) if own else of(equation.invars[:1])
        elif names and equation.primitive.name == "name":
            values[results[0]] = _Value(frozenset({equation.params["name"]}))
        elif given.before and (kind := _kind(equation)):
            for layer in given.before:
                found.setdefault(layer, kind)
            values.update(dict.fromkeys(results, _Value(after=given.before)))
        elif programs := list(inner_programs(equation.params)):
            for program in programs:
                inner = program.jaxpr
                # What a branch or loop decides on comes before the arguments of its program.
                operands = equation.invars[len(equation.invars) - len(inner.invars) :]
                pairs = zip(inner.invars, operands, strict=False)
                given_inside = {var: of([atom]) for var, atom in pairs}
                ends = _walk(inner, given_inside, level, found, names)
                if len(ends) == len(results):
                    values.update(zip(results, ends, strict=True))
        elif equation.primitive.name in _LINEAR.split():
            if equation.primitive.name == "mul":
                for layer in given.before & given.after:
                    found[layer] = _GATED.get(found[layer], found[layer])
            values.update(dict.fromkeys(results, given))
    return [of([atom]) for atom in jaxpr.outvars]


def _kind(equation: JaxprEqn) -> str:
    """Returns the non-linearity that an operation is, "" for another operation."""
    name, called = equation.primitive.name, equation.params.get("name", "")
    if name in _PRIMITIVES:
        return _PRIMITIVES[name]
    if isinstance(called, str) and called in _NAMED.split():
        return called
    return "relu" if name == "max" and any(map(_is_zero, equation.invars)) else ""


def _is_zero(atom: Any) -> bool:
    return isinstance(atom, Literal) and not np.shape(atom.val) and bool(atom.val == 0)
