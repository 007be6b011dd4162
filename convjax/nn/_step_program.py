"""What the traced program of a training step tells without any name.

A loss written by hand has no name that could be looked for. Its first operation on something that
depends on all parameters, and on something that depends on data and on no parameter, is where it
begins: the subtraction of the targets, or the choice of the labels' log-probabilities.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from convjax.nn._harvest import Tag, inner_programs, layer_output_p

# Calls whose program is part of the one around it, and from which values can leave.
CALLS = ("jit", "closed_call", "eval_jaxpr")

# The network's own operations: a kernel that is not trained is no label.
_PRODUCTS = ("dot_general", "conv_general_dilated")

# What gives two operands one shape.
_BROADCASTS = ("broadcast_in_dim", "expand_dims")

# The logarithm of probabilities, and what stands around it so that none is of zero.
_LOGARITHMS = ("log", "log1p", "log_softmax", "log_sigmoid")
_BOUNDS = ("max", "min", "add", "clamp", "clip", "_clip", "convert_element_type", *_BROADCASTS)


# How indices and one-hot rows are made of classes, smoothed or not.
_ONE_HOT = ("_one_hot", "eq", "lt", "select_n", "_where", "add", "mul", "sub", "take_along_axis")
_SHAPES = (
    *_BROADCASTS,
    *("concatenate", "convert_element_type", "copy", "reshape", "slice", "squeeze", "stack"),
)


class StepProgram(NamedTuple):
    """What the program of a training step tells without any name.

    Attributes:
      outputs: of the network, None if it cannot be told what the loss compares.
      labels: as the loss gets them, likewise.
      input: the only argument that the outputs depend on and that has several numbers for each
        example; None if there are several.
    """

    outputs: Var | None
    labels: Var | None
    input: Var | None


def read_step(
    jaxpr: Jaxpr,
    level: int,
    labels: Sequence[Var] = (),
    compared: str = "",
    untagged: Mapping[Var, Tag] | None = None,
) -> StepProgram:
    """Returns what the program of a training step tells.

    Args:
      jaxpr: of the step, in which the gradients and parameters that an optimiser gets are tagged.
      level: of the tags.
      labels: the arguments that are labels, as far as they are known.
      compared: the name of the tag on the outputs, where a known loss gets them.
      untagged: values that are taken as if they were tagged, with their tags.
    """
    of = {"params": 0, "grads": 0}
    outputs: Any = None
    bits = 0
    program = _Program(jaxpr)
    for equation in program.equations(jaxpr):
        if equation.primitive is layer_output_p and equation.params["tag"].level == level:
            tag, value = equation.params["tag"], equation.invars[0]
            kind = "".join(tag.name.split("/")[1:2])
            if tag.kind == "optimizer" and kind in of:
                of[kind] |= program.bits(value)
            elif tag.name == compared and _shape(value):
                outputs, bits = value, program.bits(value)
    for var, tag in (untagged or {}).items():
        if (kind := tag.name.split("/")[1]) in of:
            of[kind] |= program.bits(var)
    # Gradients depend on all that the loss depends on, and on no state of the optimiser.
    params = of["params"] & of["grads"]
    data = of["grads"] & ~of["params"] & program.arrays
    known = sum(1 << i for i, var in enumerate(jaxpr.invars) if var in labels) & data
    found: Any = None
    if outputs is None:
        outputs, found, bits = _first_meeting(jaxpr, params, known or data, bool(known))
        if not known and (data & ~bits).bit_count() > 1:
            found = None  # a mask or weights may come before the labels
    inputs = [
        var
        for i, var in enumerate(jaxpr.invars)
        if bits & data & ~known & 1 << i
        and _is_float(var)
        and len(_shape(var)) > 1
        and _shape(var)[0] == _shape(outputs)[0]
    ]
    only = inputs[0] if len(inputs) == 1 else None
    return StepProgram(None if found is None else outputs, found, only)


def _first_meeting(jaxpr: Jaxpr, params: int, data: int, told: bool) -> tuple[Any, Any, int]:
    """Returns the outputs, the labels, and what the outputs depend on."""
    program = _Program(jaxpr)
    for equation in program.equations(jaxpr) if params else ():
        network = *_PRODUCTS, *CALLS
        if equation.primitive.name not in network and not _is_by_platform(equation):
            met = program.meeting(equation, params, data, told)
            if met is not None:
                return *met, program.bits(met[0])
    return None, None, 0


def dropout_noise(jaxpr: Jaxpr) -> float:
    """Returns the sum of r / (1 - r) over the masks of dropout in a program, of rate r.

    It is the variance that they add to a signal of 1. Rates below a half are left out: they are
    usual, and stand in many branches that add up. A mask of dropout is one that what it keeps is
    divided by; others choose tokens or examples.
    """
    noise = 0.0
    for equation in jaxpr.eqns:
        if equation.params.get("name") == "_bernoulli" and len(equation.invars) == 2:
            kept, shape = equation.invars[1], _shape(equation.outvars[0])
            # One number for each example is the mask of a whole layer.
            if isinstance(kept, Literal) and any(length > 1 for length in shape[1:]):
                share = float(kept.val)
                noise += 1 / share - 1 if 0 < share <= 0.5 and _divides(jaxpr, share) else 0.0
        elif equation.primitive.name in CALLS:
            noise += sum(dropout_noise(p.jaxpr) for p in inner_programs(equation.params))
    return noise


def _divides(jaxpr: Jaxpr, share: float) -> bool:
    """Returns whether values are divided by a number, or multiplied by its inverse."""
    of = {"div": share, "mul": 1 / share}
    return any(
        abs(float(atom.val) / of[equation.primitive.name] - 1) < 1e-2  # also of bfloat16
        for equation in jaxpr.eqns
        if equation.primitive.name in of
        for atom in equation.invars
        if isinstance(atom, Literal) and not _shape(atom)
    )


class _Program:
    """What the values of a program depend on, as far as it has been followed."""

    def __init__(self, jaxpr: Jaxpr):
        # The arguments that each value depends on, one bit each.
        self._bits = {var: 1 << i for i, var in enumerate(jaxpr.invars)}
        self._made_by: dict[Any, JaxprEqn] = {}
        self._outside: dict[Any, Any] = {}  # an argument of an inner call -> what it is given
        # Single numbers are settings, and keys of random numbers no data.
        self.arrays = sum(1 << i for i, var in enumerate(jaxpr.invars) if _is_data(var))

    def bits(self, atom: Any) -> int:
        """Returns the arguments that a value depends on."""
        return self._bits.get(atom, 0) if isinstance(atom, Var) else 0

    def equations(self, jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
        """Yields the operations in their order, those of inner calls after the calls.

        JAX has one program for equal calls: what is known of its values holds until the next.
        """
        for equation in jaxpr.eqns:
            programs = list(inner_programs(equation.params))
            if equation.primitive.name in CALLS and len(programs) == 1:
                inner = programs[0].jaxpr
                for var, atom in zip(inner.invars, equation.invars, strict=True):
                    self._bits[var] = self.bits(atom)
                    self._outside[var] = atom
                yield equation
                yield from self.equations(inner)
                results = [self.bits(atom) for atom in inner.outvars]
            else:
                yield equation
                bits = 0
                for atom in equation.invars:
                    bits |= self.bits(atom)
                results = [bits] * len(equation.outvars)
            for var, bits in zip(equation.outvars, results, strict=True):
                self._bits[var] = bits
                self._made_by[var] = equation

    def meeting(
        self, equation: JaxprEqn, params: int, data: int, told: bool
    ) -> tuple[Any, Any] | None:
        """Returns the outputs and labels, if an operation is the first of the loss.

        The labels are None if they cannot be told.

        Args:
          equation: the operation.
          params: what the outputs depend on at least.
          data: what the labels depend on.
          told: whether the labels are known; if not, factors that are no classes may be weights.
        """
        name = equation.primitive.name
        for output in equation.invars:
            depends = self.bits(output)
            if depends & params != params or not _is_float(output):
                continue
            for other in equation.invars:
                bits = self.bits(other)
                new = bits & data & ~depends
                if bits & params or not new or not _shape(other) or _is_mask(other):
                    continue
                traced = self._before(output, _BROADCASTS)
                if name != "sub":  # of two logarithms, as of counts
                    traced = self._probabilities(traced)
                labels = self._labels(other, _shape(traced), data)
                weights = not told and name in ("mul", "div") and not _is_integer(labels)
                return traced, None if weights else labels
        return None

    def _source(self, atom: Any) -> tuple[str, list[Any]]:
        """Returns the name of the operation that made a value, and the values it was given."""
        while atom in self._outside:
            atom = self._outside[atom]
        equation = self._made_by.get(atom)
        if equation is None:
            return "", []
        name = equation.params.get("name", "") if equation.primitive.name in CALLS else ""
        return name or equation.primitive.name, [v for v in equation.invars if isinstance(v, Var)]

    def _before(self, var: Any, names: Sequence[str]) -> Any:
        """Returns the value before operations of the given names, each on a single value."""
        while True:
            name, operands = self._source(var)
            operands = [v for v in operands if _shape(v) and self.bits(v)]
            if name not in names or len(operands) != 1:
                return self._own(var)
            var = operands[0]

    def _own(self, var: Any) -> Any:
        """Returns what an argument of an inner call was given, from the outermost program."""
        while isinstance(self._outside.get(var), Var):
            var = self._outside[var]
        return var

    def _probabilities(self, output: Any) -> Any:
        """Returns what a logarithm was taken of, or the output itself."""
        inner = self._before(output, _BOUNDS)
        name, operands = self._source(inner)
        if name not in _LOGARITHMS or not operands:
            return output
        return self._before(operands[0], _BOUNDS)

    def _labels(self, var: Any, shape: tuple[int, ...], data: int) -> Any:
        """Returns the labels whose shape is one that a loss compares with outputs, or None.

        Classes are sought before they were made one-hot or indices of all axes.
        """
        chain, passed = [self._own(var)], set[str]()
        while True:
            name, operands = self._source(chain[-1])
            operands = [v for v in operands if self.bits(v) & data]
            if name == "select_n" and len(operands) > 1:  # of negative indices: y, and y + K
                operands = operands[1:2]
            if len(operands) != 1:
                break
            if name.startswith("scatter"):  # of a backward pass, where the loss is not computed
                chain.clear()
            passed.add(name)
            chain.append(self._own(operands[0]))
        of_classes = passed <= {*_ONE_HOT, *_SHAPES}
        orders: tuple[Callable[[Any], bool], ...] = (
            lambda v: of_classes and _is_integer(v) and _shape(v) == shape[:-1],
            lambda v: _shape(v) == shape,
            lambda v: _shape(v) == shape[:-1] or math.prod(_shape(v)) == math.prod(shape),
        )
        kept = [v for v in chain if _shape(v)[:1] == shape[:1]]
        return next((v for fits in orders for v in kept if fits(v)), None)


def _is_by_platform(equation: JaxprEqn) -> bool:
    """Whether it is one operation in the forms of several platforms, as `convjax.conv2d`."""
    return bool(equation.params.get("branches_platforms"))


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(getattr(atom.aval, "shape", ()))


def _dtype(atom: Any) -> Any:
    return getattr(atom.aval, "dtype", None)


def _is_float(atom: Any) -> bool:
    return bool(_shape(atom) and jnp.issubdtype(_dtype(atom), jnp.floating))


def _is_integer(atom: Any) -> bool:
    return atom is not None and bool(jnp.issubdtype(_dtype(atom), jnp.integer))


def _is_mask(atom: Any) -> bool:
    return bool(jnp.issubdtype(_dtype(atom), jnp.bool_))


def _is_data(atom: Any) -> bool:
    kinds = jnp.floating, jnp.signedinteger
    return bool(_shape(atom) and any(jnp.issubdtype(_dtype(atom), kind) for kind in kinds))
