"""Rules for operations that compute: convolutions, pooling, products, reductions, elementwise."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from convjax.analysis import indexing_rules
from convjax.analysis.affine import (
    WHOLE_SPAN,
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
from convjax.ops.geometry import dilated_size

# Operations that work element by element.
ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp
    clz complex conj convert_element_type copy copy_p cos cosh device_put digamma div eq eq_to erf
    erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite layer_output le le_to lgamma
    log log1p logistic lt lt_to max min mul name ne neg nextafter not or population_count
    pow pvary real reduce_precision rem round rsqrt select_n sharding_constraint shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
    xor
    """.split()  # noqa: SIM905  # legible
)

# Reductions over whole axes.
REDUCTIONS = (
    *("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod"),
    *("reduce_sum", "reduce_xor"),
)
POOLINGS = ("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min")
CUMULATIVE = ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum")


def _windows(
    seen: TracedArray,
    axis: int,
    outputs: int,
    *,
    size: int,
    stride: int,
    before: int,
    dilation: int,
    between: int,
) -> TracedArray:
    """Returns the array after windows along one axis, with between − 1 zeros between its cells."""
    if (size, stride, before, between) == (1, 1, 0, 1) and outputs == seen.shape[axis]:
        return seen
    last = dilated_size(size, dilation) - 1 - before
    steps = [Fraction(number, between) for number in (stride, -before, last)]
    return seen.resized(axis, outputs, *steps)


def _convolution(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    params, output = equation.params, shape_of(equation.outvars[0])
    seen = only_traced(operands, 0, "a convolution")
    numbers = params["dimension_numbers"]
    kernel = shape_of(equation.invars[1])
    for axis in numbers.lhs_spec[:2]:
        if seen.letters(axis):
            raise UntraceableError("rows or columns are the batch or the channels of a convolution")
    for i, axis in enumerate(numbers.lhs_spec[2:]):
        seen = _windows(
            seen,
            axis,
            output[numbers.out_spec[2 + i]],
            size=kernel[numbers.rhs_spec[2 + i]],
            stride=params["window_strides"][i],
            before=params["padding"][i][0],
            dilation=params["rhs_dilation"][i],
            between=params["lhs_dilation"][i],
        )
    # From the axis order of the input to that of the output.
    axes: list[Sequence[AxisFactor]] = [(AxisFactor(size),) for size in output]
    for source, target in zip(numbers.lhs_spec[2:], numbers.out_spec[2:], strict=True):
        axes[target] = seen.axes[source]
    return [seen.with_axes(axes)]


def _pooling(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    params, output = equation.params, shape_of(equation.outvars[0])
    seen = only_traced(operands, 0, "a pooling")
    for axis, size in enumerate(params["window_dimensions"]):
        seen = _windows(
            seen,
            axis,
            output[axis],
            size=size,
            stride=params["window_strides"][axis],
            before=params["padding"][axis][0],
            dilation=params["window_dilation"][axis],
            between=params["base_dilation"][axis],
        )
    return [seen]


def _reduction(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    params = equation.params
    seen = [operand for operand in operands if isinstance(operand, TracedArray)]
    axes = params["axes"] if "axes" in params else params["dimensions"]
    return [join([one.without(axes) for one in seen])] * len(equation.outvars)


def _product(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    contracted, batch = equation.params["dimension_numbers"]
    output = shape_of(equation.outvars[0])
    sides = [i for i, operand in enumerate(operands) if isinstance(operand, TracedArray)]
    if len(sides) == 2:
        # Attention: the image decides the weights, so each result depends on the whole image.
        everything = TracedArray((), dict.fromkeys("HW", WHOLE_SPAN))
        return [everything.with_axes([(AxisFactor(size),) for size in output])]
    side = sides[0]
    seen, other = only_traced(operands, side, "a product"), operands[1 - side]
    if isinstance(other, TracedConstant) and (
        banded := _banded(seen, other, contracted, batch, side)
    ):
        return [banded]
    summed = seen.without(contracted[side])
    left = [axis for axis in range(len(seen.axes)) if axis not in contracted[side]]
    axis_of = {axis: summed.axes[i] for i, axis in enumerate(left)}
    # dot_general puts the axes of the batch first, then those of the left and of the right side.
    batched = [axis_of[axis] for axis in batch[side]]
    free = [axis_of[axis] for axis in left if axis not in batch[side]]
    used = (*contracted[1 - side], *batch[1 - side])
    shape = shape_of(equation.invars[1 - side])
    others = [(AxisFactor(size),) for axis, size in enumerate(shape) if axis not in used]
    return [summed.with_axes([*batched, *((*free, *others) if side == 0 else (*others, *free))])]


def _banded(
    seen: TracedArray, matrix: TracedConstant, contracted: Any, batch: Any, side: int
) -> TracedArray | None:
    """Returns rows or columns mixed by a banded constant matrix, as in an image resize.

    None for any other product.
    """
    if batch[0] or len(contracted[0]) != 1 or matrix.value.ndim != 2:
        return None
    (axis,), (inner,) = contracted[side], contracted[1 - side]
    if not seen.letters(axis) or len(seen.axes[axis]) != 1:
        return None
    used = np.moveaxis(matrix.value, inner, 0) != 0
    if not used.any(0).all():
        return None
    first, last = used.argmax(0), len(used) - 1 - used[::-1].argmax(0)
    if (last - first).max() == len(used) - 1:
        return None
    mixed = index_axis(seen, axis, first, last)
    rest = [i for i in range(len(seen.axes)) if i != axis]
    return mixed.with_axes([mixed.axes[i] for i in ((*rest, axis) if side == 0 else (axis, *rest))])


def _along_an_axis(equation: JaxprEqn, operands: Sequence[TracedValue]) -> list[TracedValue]:
    """Sorting, cumulative sums and top_k, which can be traced along channels only."""
    params = equation.params
    seen = [operand for operand in operands if isinstance(operand, TracedArray)]
    axis = params["axis"] if "axis" in params else params["dimension"]
    if any(one.letters(axis) for one in seen):
        raise UntraceableError(f"{equation.primitive.name} goes along rows or columns")
    size = shape_of(equation.outvars[0])[axis]
    return [join([one.resized(axis, size, 1, 0, 0) for one in seen])] * len(equation.outvars)


RULES: dict[str, SpanRule] = {
    **indexing_rules.RULES,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "reduce": _reduction,
    **dict.fromkeys(("sort", "top_k", *CUMULATIVE), _along_an_axis),
    **dict.fromkeys(POOLINGS, _pooling),
    **dict.fromkeys(REDUCTIONS, _reduction),
}
