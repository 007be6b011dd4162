"""Rules for operations that move values without computing: slices, reshapes, gathers."""

from collections.abc import Sequence
from fractions import Fraction

from jax.extend.core import JaxprEqn

from convjax.analysis.affine import (
    AxisFactor,
    SpanRule,
    TracedArray,
    TracedConstant,
    TracedValue,
    UntraceableError,
    index_axis,
    join,
    only_traced,
    shape_of,
)


def _gather(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen = only_traced(operands, 0, "a gather")
    numbers = equation.params["dimension_numbers"]
    output, sizes = shape_of(equation.outvars[0]), equation.params["slice_sizes"]
    moved = set(numbers.start_index_map) | set(numbers.operand_batching_dims)
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    axes: list[Sequence[AxisFactor]] = [(AxisFactor(size),) for size in output]
    for axis in range(len(seen.axes)):
        if not seen.letters(axis):
            continue
        indices = operands[1]
        if axis not in moved and sizes[axis] == seen.shape[axis]:
            continue
        indexed = len(moved) == 1 and axis in gone and len(output) - len(numbers.offset_dims) == 1
        if not (indexed and isinstance(indices, TracedConstant)):
            raise UntraceableError("rows or columns are selected by index (gather)")
        places = indices.value.reshape(-1)
        seen = index_axis(seen, axis, places, places)
        (target,) = (i for i in range(len(output)) if i not in numbers.offset_dims)
        axes[target] = seen.axes[axis]
    kept = [axis for axis in range(len(seen.axes)) if axis not in gone]
    for axis, target in zip(kept, numbers.offset_dims, strict=True):
        if sizes[axis] == seen.shape[axis]:
            axes[target] = seen.axes[axis]
    return [seen.with_axes(axes)]


def _pad(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen, output = only_traced(operands, 0, "a padding"), shape_of(equation.outvars[0])
    for axis, (before, after, between) in enumerate(equation.params["padding_config"]):
        if (before, after, between) != (0, 0, 0):
            shift = Fraction(-before, between + 1)
            seen = seen.resized(axis, output[axis], Fraction(1, between + 1), shift, shift)
    return [seen]


def _slice(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen, params = only_traced(operands, 0, "a slice"), equation.params
    strides = params["strides"] or (1,) * len(seen.axes)
    for axis, (start, stride) in enumerate(zip(params["start_indices"], strides, strict=True)):
        size = shape_of(equation.outvars[0])[axis]
        if size != seen.shape[axis]:
            seen = seen.resized(axis, size, stride, start, start)
    return [seen]


def _dynamic_slice(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen = only_traced(operands, 0, "a slice")
    for axis, size in enumerate(equation.params["slice_sizes"]):
        if size != seen.shape[axis]:
            if seen.letters(axis):
                raise UntraceableError("rows or columns are cut at a place that is computed")
            seen = seen.resized(axis, size, 1, 0, 0)
    return [seen]


def _split(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen, axis = only_traced(operands, 0, "a split"), equation.params["axis"]
    sizes = equation.params["sizes"]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        seen.resized(axis, size, 1, start, start) for size, start in zip(sizes, starts, strict=True)
    ]


def _unstack(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen, axis = only_traced(operands, 0, "an unstacking"), equation.params["axis"]
    return [
        _without_axis(seen.resized(axis, 1, 1, place, place), axis)
        for place in range(len(equation.outvars))
    ]


def _stack(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen = join([operand for operand in operands if isinstance(operand, TracedArray)])
    axes: list[Sequence[AxisFactor]] = list(seen.axes)
    axes.insert(equation.params["axis"], (AxisFactor(len(operands)),))
    return [seen.with_axes(axes)]


def _concatenation(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    axis, size = equation.params["dimension"], shape_of(equation.outvars[0])
    seen = [operand for operand in operands if isinstance(operand, TracedArray)]
    if not any(factor.letter for operand in seen for factor in operand.axes[axis]):
        return [join([operand.resized(axis, size[axis], 1, 0, 0) for operand in seen])]
    if len(seen) > 1:
        raise UntraceableError("parts of the image are put together along its rows or columns")
    place = next(i for i, operand in enumerate(operands) if operand is seen[0])
    before = sum(shape_of(value)[axis] for value in equation.invars[:place])
    return [seen[0].resized(axis, size[axis], 1, -before, -before)]


def _tile(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen = only_traced(operands, 0, "a tiling")
    for axis, times in enumerate(equation.params["reps"]):
        if times > 1:
            if seen.letters(axis):
                raise UntraceableError(
                    "parts of the image are put together along its rows or columns"
                )
            seen = seen.broadcast([n * times if i == axis else n for i, n in enumerate(seen.shape)])
    return [seen]


def _broadcast(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen, shape = only_traced(operands, 0, "a broadcast"), equation.params["shape"]
    axes: list[Sequence[AxisFactor]] = [(AxisFactor(size),) for size in shape]
    for source, target in enumerate(equation.params["broadcast_dimensions"]):
        if seen.shape[source] == shape[target]:
            axes[target] = seen.axes[source]
    return [seen.with_axes(axes)]


def _squeeze(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen, gone = only_traced(operands, 0, "a squeeze"), equation.params["dimensions"]
    return [seen.with_axes([axis for i, axis in enumerate(seen.axes) if i not in gone])]


def _reshape(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    if equation.params.get("dimensions") is not None:
        raise UntraceableError("a reshape changes the order of axes")
    return [only_traced(operands, 0, "a reshape").reshaped(shape_of(equation.outvars[0]))]


def _transpose(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen = only_traced(operands, 0, "a transposition")
    return [seen.with_axes([seen.axes[axis] for axis in equation.params["permutation"]])]


def _reverse(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    seen = only_traced(operands, 0, "a reversal")
    if any(seen.letters(axis) for axis in equation.params["dimensions"]):
        raise UntraceableError("rows or columns are reversed (rev)")
    return [seen]


def _without_axis(seen: TracedArray, axis: int) -> TracedArray:
    return seen.with_axes([*seen.axes[:axis], *seen.axes[axis + 1 :]])


RULES: dict[str, SpanRule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenation,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
