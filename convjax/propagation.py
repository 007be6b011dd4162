"""Follows spans through the operations of a traced program, from the images to its results."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from convjax.geometry import dilated_size
from convjax.spans import Atom, LostError, Seen, join

# What a value sees; None for what does not depend on the images, such as parameters, and an error
# for what cannot be told.
Sight = Seen | LostError | None

# Operations whose result has at each place what their operands have there.
ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp clz
    convert_element_type copy copy_p cos cosh device_put digamma div eq erf erf_inv erfc exp exp2
    expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul name ne neg
    nextafter not or population_count pow pvary reduce_precision rem round rsqrt select_n
    sharding_constraint sign sin sinh sqrt square stop_gradient sub tan tanh xor
    """.split()  # noqa: SIM905  # legible
)

# Sums and the like over whole axes.
REDUCTIONS = frozenset(
    """
    argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor
    """.split()  # noqa: SIM905  # legible
)

POOLINGS = ("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min")


def propagate(jaxpr: ClosedJaxpr, inputs: Sequence[Sight]) -> list[Sight]:
    """Returns what each result of a program sees, given what each argument sees."""
    return _run(jaxpr.jaxpr, inputs)


def _run(jaxpr: Jaxpr, inputs: Sequence[Sight]) -> list[Sight]:
    known: dict[Var, Sight] = dict(zip(jaxpr.invars, inputs, strict=True))

    def sight(value: Any) -> Sight:
        return None if isinstance(value, Literal) else known.get(value)

    for equation in jaxpr.eqns:
        operands = [sight(value) for value in equation.invars]
        known.update(zip(equation.outvars, _results(equation, operands), strict=True))
    return [sight(value) for value in jaxpr.outvars]


def _results(equation: JaxprEqn, operands: Sequence[Sight]) -> Sequence[Sight]:
    """Returns what each result of one operation sees."""
    name, outputs = equation.primitive.name, len(equation.outvars)
    if all(operand is None for operand in operands):
        return [None] * outputs
    if name == "optimization_barrier":
        return operands
    if name == "scan":
        return _scan(equation, operands)
    if name == "cond":
        found = [_run(branch.jaxpr, operands[1:]) for branch in equation.params["branches"]]
        if operands[0] is not None:
            return [LostError("the image decides a branch (cond)")] * outputs
        return [_joined(results) for results in zip(*found, strict=True)]
    if (inner := _inner(equation)) is not None:
        return _run(inner, operands)
    for operand in operands:
        if isinstance(operand, LostError):
            return [operand] * outputs
    try:
        if name in ELEMENTWISE:
            return [join([operand for operand in operands if isinstance(operand, Seen)])] * outputs
        if name not in RULES:
            raise LostError(f"what the operation {name} sees is not known")
        return RULES[name](equation, operands)
    except LostError as error:
        return [error] * outputs


def _joined(results: Sequence[Sight]) -> Sight:
    """Returns what is seen where it is not known which of several results is taken."""
    seen = []
    for result in results:
        if isinstance(result, LostError):
            return result
        if result is not None:
            seen.append(result)
    try:
        return join(seen) if seen else None
    except LostError as error:
        return error


def _inner(equation: JaxprEqn) -> Jaxpr | None:
    """Returns the program of an operation that only calls it: jit, remat, custom_jvp and so on."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = equation.params.get(key)
        if equation.primitive.name != "while" and found is not None:
            inner = found.jaxpr if isinstance(found, ClosedJaxpr) else found
            if len(inner.invars) == len(equation.invars):
                return inner
    return None


def _scan(equation: JaxprEqn, operands: Sequence[Sight]) -> Sequence[Sight]:
    """Runs the body as often as the loop does: the spans of the carry grow from turn to turn."""
    params = equation.params
    constants, carries = params["num_consts"], params["num_carry"]
    fixed = operands[:constants]
    carry = list(operands[constants : constants + carries])
    if any(operand is not None for operand in operands[constants + carries :]):
        lost = LostError("a loop runs over parts of the image (scan)")
        return [lost] * len(equation.outvars)
    slices = [None] * (len(operands) - constants - carries)
    stacked: list[list[Sight]] = []
    for _ in range(params["length"]):
        results = _run(params["jaxpr"].jaxpr, [*fixed, *carry, *slices])
        carry = list(results[:carries])
        stacked.append(list(results[carries:]))
    found: list[Sight] = list(carry)
    for of_turns in zip(*stacked, strict=True):
        one = _joined(of_turns)
        if isinstance(one, Seen):
            one = one.with_axes([(Atom(params["length"]),), *one.axes])
        found.append(one)
    return found


def _shape(value: Any) -> tuple[int, ...]:
    return value.aval.shape


def _only(operands: Sequence[Sight], position: int, name: str) -> Seen:
    """Returns the operand at a position, where no other depends on the images."""
    seen = operands[position]
    if not isinstance(seen, Seen) or sum(operand is not None for operand in operands) > 1:
        raise LostError(f"the image enters {name} as more than the value that it works on")
    return seen


def _convolution(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    params = equation.params
    seen = _only(operands, 0, "a convolution")
    numbers = params["dimension_numbers"]
    kernel = _shape(equation.invars[1])
    for axis in numbers.lhs_spec[:2]:
        if seen.letters(axis):
            raise LostError("rows or columns are the batch or the channels of a convolution")
    for i, axis in enumerate(numbers.lhs_spec[2:]):
        before, _ = params["padding"][i]
        size = kernel[numbers.rhs_spec[2 + i]]
        output = _shape(equation.outvars[0])[numbers.out_spec[2 + i]]
        # In pixels of the input, between which a transposed convolution has lhs_dilation − 1 more.
        between = params["lhs_dilation"][i]
        last = dilated_size(size, params["rhs_dilation"][i]) - 1 - before
        steps = [Fraction(n, between) for n in (params["window_strides"][i], -before, last)]
        seen = seen.resized(axis, output, *steps)
    # From the order of the input to that of the output.
    axes: list[Sequence[Atom]] = [()] * len(seen.axes)
    shape = _shape(equation.outvars[0])
    for place, (source, target) in enumerate(zip(numbers.lhs_spec, numbers.out_spec, strict=True)):
        axes[target] = seen.axes[source] if place > 1 else (Atom(shape[target]),)
    return [seen.with_axes(axes)]


def _pooling(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    params = equation.params
    seen = _only(operands, 0, "a pooling")
    for axis, size in enumerate(params["window_dimensions"]):
        stride, (before, after) = params["window_strides"][axis], params["padding"][axis]
        between, dilation = params["base_dilation"][axis], params["window_dilation"][axis]
        if (size, stride, before, after, between) == (1, 1, 0, 0, 1):
            continue
        last = dilated_size(size, dilation) - 1 - before
        steps = [Fraction(n, between) for n in (stride, -before, last)]
        seen = seen.resized(axis, _shape(equation.outvars[0])[axis], *steps)
    return [seen]


def _reduction(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen = _only(operands, 0, "a sum")
    return [seen.without(equation.params["axes"])]


def _product(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    contracted, batch = equation.params["dimension_numbers"]
    side = 0 if operands[0] is not None else 1
    seen = _only(operands, side, "a product on both sides")
    other = _shape(equation.invars[1 - side])
    # Summed over, the contracted axes are gone; the others follow in the order of dot_general.
    summed = seen.without(contracted[side])
    left = [axis for axis in range(len(seen.axes)) if axis not in contracted[side]]
    axis_of = {axis: summed.axes[i] for i, axis in enumerate(left)}
    free = [axis_of[axis] for axis in left if axis not in batch[side]]
    used = (*contracted[1 - side], *batch[1 - side])
    others = [(Atom(size),) for axis, size in enumerate(other) if axis not in used]
    both = [*free, *others] if side == 0 else [*others, *free]
    return [summed.with_axes([*(axis_of[axis] for axis in batch[side]), *both])]


def _pad(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen = _only(operands, 0, "a padding")
    for axis, (before, after, between) in enumerate(equation.params["padding_config"]):
        if (before, after, between) != (0, 0, 0):
            size = _shape(equation.outvars[0])[axis]
            shift = Fraction(-before, between + 1)
            seen = seen.resized(axis, size, Fraction(1, between + 1), shift, shift)
    return [seen]


def _slice(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen, params = _only(operands, 0, "a slice"), equation.params
    strides = params["strides"] or (1,) * len(seen.axes)
    for axis, (start, stride) in enumerate(zip(params["start_indices"], strides, strict=True)):
        size = _shape(equation.outvars[0])[axis]
        if size != seen.shape[axis]:
            seen = seen.resized(axis, size, stride, start, start)
    return [seen]


def _split(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen, axis = _only(operands, 0, "a split"), equation.params["axis"]
    sizes = equation.params["sizes"]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        seen.resized(axis, size, 1, start, start) for size, start in zip(sizes, starts, strict=True)
    ]


def _concatenation(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    axis, size = equation.params["dimension"], _shape(equation.outvars[0])
    seen = [operand for operand in operands if isinstance(operand, Seen)]
    if not any(operand.letters(axis) for operand in seen):
        return [join([operand.resized(axis, size[axis], 1, 0, 0) for operand in seen])]
    if len(seen) > 1:
        raise LostError("parts of the image are put together along its rows or columns")
    place = operands.index(seen[0])
    before = sum(_shape(value)[axis] for value in equation.invars[:place])
    return [seen[0].resized(axis, size[axis], 1, -before, -before)]


def _broadcast(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen, shape = _only(operands, 0, "a broadcast"), equation.params["shape"]
    axes: list[Sequence[Atom]] = [(Atom(size),) for size in shape]
    for source, target in enumerate(equation.params["broadcast_dimensions"]):
        if seen.shape[source] == shape[target]:
            axes[target] = seen.axes[source]
    return [seen.with_axes(axes)]


def _squeeze(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen, gone = _only(operands, 0, "a squeeze"), equation.params["dimensions"]
    return [seen.with_axes([axis for i, axis in enumerate(seen.axes) if i not in gone])]


def _reshape(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen = _only(operands, 0, "a reshape")
    if 0 in seen.shape or equation.params.get("dimensions") is not None:
        raise LostError("a reshape changes the order of axes")
    return [seen.reshaped(_shape(equation.outvars[0]))]


def _transpose(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen = _only(operands, 0, "a transposition")
    return [seen.with_axes([seen.axes[axis] for axis in equation.params["permutation"]])]


def _reverse(equation: JaxprEqn, operands: Sequence[Sight]) -> list[Sight]:
    seen = _only(operands, 0, "a reversal")
    if any(seen.letters(axis) for axis in equation.params["dimensions"]):
        raise LostError("rows or columns are reversed (rev)")
    return [seen]


RULES: dict[str, Callable[[JaxprEqn, Sequence[Sight]], Sequence[Sight]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenation,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
    **dict.fromkeys(POOLINGS, _pooling),
    **dict.fromkeys(REDUCTIONS, _reduction),
}
