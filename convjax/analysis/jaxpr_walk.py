"""Propagates spans through a jaxpr, from the images to its results.

The rules for single operations are in `convjax.analysis.operation_rules` and
`convjax.analysis.indexing_rules`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from convjax.analysis.affine import (
    AxisFactor,
    TracedArray,
    TracedConstant,
    TracedValue,
    UntraceableError,
    join,
    shape_of,
)
from convjax.analysis.operation_rules import ELEMENTWISE, RULES

# Primitives that only call an inner program.
CALLS = frozenset(
    """
    checkpoint closed_call core_call custom_jvp_call custom_lin custom_vjp_call
    custom_vjp_call_jaxpr jit pjit remat remat2 run_state
    """.split()  # noqa: SIM905  # legible
)


def propagate(jaxpr: ClosedJaxpr, inputs: Sequence[TracedValue]) -> list[TracedValue]:
    """Returns the traced value of each result of a program, given those of its arguments."""
    return _run(jaxpr, inputs)


def _run(program: ClosedJaxpr | Jaxpr, inputs: Sequence[TracedValue]) -> list[TracedValue]:
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    known: dict[Var, TracedValue] = dict(zip(jaxpr.invars, inputs, strict=True))
    if isinstance(program, ClosedJaxpr):
        constants = [TracedConstant(partial(np.asarray, value)) for value in program.consts]
        known.update(zip(jaxpr.constvars, constants, strict=True))

    def traced_value(value: Any) -> TracedValue:
        if isinstance(value, Literal):
            return TracedConstant(partial(np.asarray, value.val))
        # An empty array depends on nothing.
        return None if 0 in shape_of(value) else known.get(value)

    stacks: dict[Var, list[TracedValue]] = {}  # the results of scans, one for each iteration
    for equation in jaxpr.eqns:
        operands = [traced_value(value) for value in equation.invars]
        results = _iteration(equation, stacks) or _results(equation, operands, stacks)
        known.update(zip(equation.outvars, results, strict=True))
    return [traced_value(value) for value in jaxpr.outvars]


def _iteration(
    equation: JaxprEqn, stacks: dict[Var, list[TracedValue]]
) -> list[TracedValue] | None:
    """Returns one iteration of a result of a scan where an operation takes it, or else None."""
    source = equation.invars[0] if equation.primitive.name == "slice" else None
    if not isinstance(source, Var) or source not in stacks:
        return None
    first, *others = shape_of(equation.outvars[0])
    if first != 1 or tuple(others) != shape_of(source)[1:]:
        return None
    found = stacks[source][equation.params["start_indices"][0]]
    if isinstance(found, TracedArray):
        found = found.with_axes([(AxisFactor(1),), *found.axes])
    return [found]


def _results(
    equation: JaxprEqn, operands: Sequence[TracedValue], stacks: dict[Var, list[TracedValue]]
) -> Sequence[TracedValue]:
    """Returns the traced value of each result of one operation."""
    name, outputs = equation.primitive.name, len(equation.outvars)
    if name in CALLS:
        return _run(_called(equation), operands)
    if not any(isinstance(operand, TracedArray | UntraceableError) for operand in operands):
        return _constants(equation, operands)
    if name == "optimization_barrier":
        return operands
    if name == "scan":
        return _scan(equation, operands, stacks)
    if name == "cond":
        return _branches(equation, operands)
    for operand in operands:
        if isinstance(operand, UntraceableError):
            return [operand] * outputs
    try:
        if name in ELEMENTWISE:
            shape = shape_of(equation.outvars[0])
            seen = [
                operand.broadcast(shape) for operand in operands if isinstance(operand, TracedArray)
            ]
            return [join(seen)] * outputs
        if name not in RULES:
            raise UntraceableError(f"the operation {name} has no rule")
        return RULES[name](equation, operands)
    except UntraceableError as error:
        return [error] * outputs


def _called(equation: JaxprEqn) -> ClosedJaxpr | Jaxpr:
    """Returns the inner program that an operation calls."""
    params = equation.params
    return next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)


def _constants(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    """Returns results that do not depend on the images; constants if all operands are."""
    constants = [operand for operand in operands if isinstance(operand, TracedConstant)]
    if len(constants) < len(operands) or equation.primitive.multiple_results:
        return [None] * len(equation.outvars)

    def compute() -> Any:
        values = [constant.value for constant in constants]
        return np.asarray(equation.primitive.bind(*values, **equation.params))

    return [TracedConstant(compute)]


def _branches(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    """Joins the results of the branches of a condition."""
    if isinstance(operands[0], TracedArray | UntraceableError):
        return [UntraceableError("the image decides a branch (cond)")] * len(equation.outvars)
    branches = equation.params["branches"]
    if equation.params.get("branches_platforms"):
        branches = branches[-1:]  # all compute the same; the last is for any platform
    found = [_run(branch, operands[1:]) for branch in branches]
    return [_joined(results) for results in zip(*found, strict=True)]


def _joined(results: Sequence[TracedValue]) -> TracedValue:
    """Returns the union of several results, any of which may be taken."""
    for result in results:
        if isinstance(result, UntraceableError):
            return result
    seen = [result for result in results if isinstance(result, TracedArray)]
    try:
        return join(seen) if seen else None
    except UntraceableError as error:
        return error


def _scan(
    equation: JaxprEqn, operands: Sequence[TracedValue], stacks: dict[Var, list[TracedValue]]
) -> Sequence[TracedValue]:
    """Propagates through each iteration of a loop, because the spans of the carry may grow."""
    params = equation.params
    if "ft_in" in params:  # from JAX 0.12 on
        fixed, start, sliced = map(list, params["ft_in"].update(list(operands)).unpack())
    else:
        ends = params["num_consts"], params["num_consts"] + params["num_carry"]
        every = list(operands)
        fixed, start, sliced = every[: ends[0]], every[ends[0] : ends[1]], every[ends[1] :]
    carries = len(start)
    if any(isinstance(operand, TracedArray | UntraceableError) for operand in sliced):
        lost = UntraceableError("a loop runs over parts of the image (scan)")
        return [lost] * len(equation.outvars)
    carry, stacked = list(start), []
    for _ in range(params["length"]):
        results = _run(params["jaxpr"], [*fixed, *carry, *[None] * len(sliced)])
        stacked.append(results[carries:])
        if results[:carries] == carry:  # as in all iterations that follow
            break
        carry = list(results[:carries])
    found: list[TracedValue] = list(carry)
    for variable in equation.outvars[carries:]:
        iterations = [results[len(found) - carries] for results in stacked]
        last = iterations[-1:] * (params["length"] - len(iterations))
        in_order = [*iterations, *last]
        stacks[variable] = in_order[::-1] if params["reverse"] else in_order
        joined = _joined(iterations)
        if isinstance(joined, TracedArray):
            joined = joined.with_axes([(AxisFactor(shape_of(variable)[0]),), *joined.axes])
        found.append(joined)
    return found
