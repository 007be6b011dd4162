"""Affine spans: which pixels of the image each element of a traced array depends on.

Along rows and columns, index i depends on the pixels from stride·i + low to stride·i + high. Each
operation of a traced program maps these spans by its own formula. Where two paths meet, their spans
are joined.

References:
  Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
  https://distill.pub/2019/computing-receptive-fields.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import JaxprEqn

Number = Fraction | int | float  # float for the infinite ends of a span alone


class Span(NamedTuple):
    """The pixels along one axis of the image that an index of an array depends on.

    After a transposed convolution the stride is a fraction and cells differ by their phase. The
    span then covers the cells of all phases.

    Attributes:
      stride: pixels from one index to the next.
      low, high: first and last pixel of index 0; both infinite where it depends on all pixels.
    """

    stride: Number
    low: Number
    high: Number

    @property
    def size(self) -> int | float:
        """Number of pixels; infinite for the whole image, however large."""
        reach = self.high - self.low
        return math.inf if reach == math.inf else math.floor(reach) + 1

    @property
    def padding(self) -> Number:
        """Pixels by which index 0 extends beyond the first pixel of the image.

        It is the padding of a single kernel with the receptive field of all layers together.
        """
        return -self.low

    def through(self, step: Number, first: Number, last: Number) -> "Span":
        """Returns the span of an axis whose index i covers step·i + first to step·i + last."""
        if self.size == math.inf:
            return self
        low, high = self.low + self.stride * first, self.high + self.stride * last
        return Span(self.stride * step, low, high)


PIXEL_SPAN = Span(Fraction(1), Fraction(0), Fraction(0))
WHOLE_SPAN = Span(Fraction(0), -math.inf, math.inf)


class UntraceableError(Exception):
    """Raised where no span describes the result of an operation; the message gives the reason."""


class AxisFactor(NamedTuple):
    """A factor of an axis: letter "H" or "W" if its index is a row or a column, "" otherwise."""

    size: int
    letter: str = ""


@dataclass(frozen=True)
class TracedArray:
    """An array of a traced program with the pixels that its elements depend on.

    Attributes:
      axes: the factors of each axis, the slowest first. Factors of size 1 without a letter are left
        out.
      spans: of the letters "H" and "W". Where no axis has the letter, the span is that of index 0,
        which all elements share.
    """

    axes: tuple[tuple[AxisFactor, ...], ...]
    spans: Mapping[str, Span]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return tuple(math.prod(factor.size for factor in axis) for axis in self.axes)

    def letters(self, axis: int) -> str:
        """Returns the letters of an axis whose factors are larger than 1."""
        return "".join(factor.letter for factor in self.axes[axis] if factor.size > 1)

    def axis_of(self, letter: str) -> int | None:
        """Returns the axis that consists of rows (or columns) alone, None if there is none."""
        for i, axis in enumerate(self.axes):
            if [factor.letter for factor in axis] == [letter]:
                return i
        return None

    def folded(self) -> "TracedArray":
        """Returns the array with repeated rows or columns merged into one axis factor.

        After k repetitions, index i of the axis equals index ⌊i/k⌋ of the axis before. The factors
        stay separate until this is called, because channels flattened with rows look the same.
        """
        found = self
        for i, axis in enumerate(self.axes):
            if len(axis) == 2 and axis[0].letter and not axis[1].letter:
                (rows, letter), (times, _) = axis
                spans = dict(found.spans)
                back = Fraction(1 - times, times)
                spans[letter] = spans[letter].through(Fraction(1, times), back, Fraction(0))
                axes = [*found.axes[:i], (AxisFactor(rows * times, letter),), *found.axes[i + 1 :]]
                found = TracedArray(tuple(axes), spans)
        return found

    def broadcast(self, shape: Sequence[int]) -> "TracedArray":
        """Returns the array broadcast to a shape: axes of size 1 are repeated.

        The shape has as many axes as the array, or any number if the array has none.
        """
        axes: list[tuple[AxisFactor, ...]] = [(AxisFactor(size),) for size in shape]
        for i, (size, axis) in enumerate(zip(self.shape, self.axes, strict=False)):
            if size == shape[i]:
                axes[i] = axis
        return self.with_axes(axes)

    def with_axes(self, axes: Sequence[Sequence[AxisFactor]]) -> "TracedArray":
        """Returns the array with other axes; a letter that is left out keeps its index 0."""
        return replace(self, axes=tuple(map(normalized_axis, axes)))

    def resized(
        self, axis: int, size: int, step: Number, first: Number, last: Number
    ) -> "TracedArray":
        """Returns the array whose index i along one axis covers step·i + first to step·i + last.

        Raises:
          UntraceableError: if rows or columns are only a part of that axis.
        """
        seen = self.folded() if self.letters(axis) else self
        factors = seen.axes[axis]
        if len(factors) > 1:  # a single row or column has no index to resize
            factors = tuple(factor for factor in factors if factor.size > 1)
        letter = "".join(factor.letter for factor in factors)
        if letter and len(factors) > 1:
            raise UntraceableError("rows or columns share an axis with something else")
        axes = [*seen.axes[:axis], (AxisFactor(size, letter),), *seen.axes[axis + 1 :]]
        spans = dict(seen.spans)
        if letter:
            spans[letter] = spans[letter].through(step, first, last)
        return TracedArray(tuple(map(normalized_axis, axes)), spans)

    def without(self, axes: Sequence[int]) -> "TracedArray":
        """Returns the array reduced over axes: each element depends on all indices along them."""
        gone = {letter for axis in axes for letter in self.letters(axis)}
        spans = {k: WHOLE_SPAN if k in gone else span for k, span in self.spans.items()}
        kept = [axis for i, axis in enumerate(self.axes) if i not in axes]
        return replace(self, axes=tuple(kept), spans=spans)

    def reshaped(self, shape: Sequence[int]) -> "TracedArray":
        """Returns the array reshaped.

        Raises:
          UntraceableError: if rows or columns are cut into parts of unequal size.
        """
        # Axes of size 1 count as factors, so that an axis of a single row keeps its letter.
        left = [factor for axis in self.axes for factor in axis or (AxisFactor(1),)][::-1]
        spans = dict(self.spans)
        axes = []
        for size in shape:
            axis: list[AxisFactor] = []
            room = size
            while room > 1:
                factor = left.pop()
                if factor.size > room:
                    inner, rest = divmod(factor.size, room)
                    if rest:
                        raise UntraceableError(
                            f"an axis of {factor.size} is cut into parts of {room}"
                        )
                    # Index = outer·inner + rest: the inner index no longer stands for a row.
                    if factor.letter:
                        span = spans[factor.letter]
                        spans[factor.letter] = span.through(inner, 0, inner - 1)
                    left.append(AxisFactor(inner))
                    factor = AxisFactor(room, factor.letter)
                if room % factor.size:
                    raise UntraceableError(f"axes are joined to {size} across their ends")
                axis.append(factor)
                room //= factor.size
            if size == 1 and left and left[-1].size == 1:
                axis.append(left.pop())
            axes.append(axis)
        return replace(self, axes=tuple(map(normalized_axis, axes)), spans=spans)


def normalized_axis(axis: Sequence[AxisFactor]) -> tuple[AxisFactor, ...]:
    """Returns the factors of an axis in canonical form: neighbours without letters are merged."""
    found: list[AxisFactor] = []
    for factor in axis:
        if factor.size == 1 and not factor.letter:
            continue
        if found and not factor.letter and not found[-1].letter:
            found[-1] = AxisFactor(found[-1].size * factor.size)
        else:
            found.append(factor)
    return tuple(found)


def join(arrays: Sequence[TracedArray]) -> TracedArray:
    """Returns the array whose elements depend on all that they depend on in any of several arrays.

    Args:
      arrays: one or more, of one shape.

    Raises:
      UntraceableError: if no span describes the union, such as for different strides.
    """
    joined = arrays[0]
    for other in arrays[1:]:
        joined = _join(joined, other)
    return joined


def _join(a: TracedArray, b: TracedArray) -> TracedArray:
    if a.axes != b.axes:
        a, b = a.folded(), b.folded()
    axes = tuple(map(_joined_axis, a.axes, b.axes))
    spans = {letter: _joined_span(letter, a, b) for letter in a.spans}
    return TracedArray(axes, spans)


def _joined_axis(
    mine: tuple[AxisFactor, ...], its: tuple[AxisFactor, ...]
) -> tuple[AxisFactor, ...]:
    """Returns the factors of an axis that two arrays share."""
    lettered = [axis for axis in (mine, its) if any(factor.letter for factor in axis)]
    if not lettered:
        return mine
    if len(lettered) == 2 and mine != its:
        raise UntraceableError("rows and columns meet in another order")
    return lettered[0]


def _joined_span(letter: str, a: TracedArray, b: TracedArray) -> Span:
    first, second = a.spans[letter], b.spans[letter]
    if WHOLE_SPAN in (first, second):
        return WHOLE_SPAN
    # Number of indices; 0 where no axis has this letter.
    counts = [
        max(
            (factor.size for axis in seen.axes for factor in axis if factor.letter == letter),
            default=0,
        )
        for seen in (a, b)
    ]
    if (counts[0] > 1) != (counts[1] > 1):
        raise UntraceableError("a path that depends on one place joins one that depends on many")
    if all(counts) and first.stride != second.stride:
        raise UntraceableError(
            f"paths with strides of {first.stride} and {second.stride} pixels meet"
        )
    stride = first.stride if counts[0] else second.stride
    return Span(stride, min(first.low, second.low), max(first.high, second.high))


class TracedConstant:
    """A value that depends neither on images nor on parameters; computed when a rule needs it."""

    def __init__(self, compute: Callable[[], Any]):
        self._compute = compute

    @cached_property
    def value(self) -> np.ndarray:
        """The value."""
        return self._compute()


# What is known of a value: its spans, or the error that ended the trace. A value that does not
# depend on the images is a constant, or None (such as a parameter).
TracedValue = TracedArray | UntraceableError | TracedConstant | None

SpanRule = Callable[[JaxprEqn, Sequence[TracedValue]], Sequence[TracedValue]]


def shape_of(value: Any) -> tuple[int, ...]:
    """Returns the shape of a variable of a jaxpr; () if it has none."""
    return getattr(value.aval, "shape", ())


def only_traced(operands: Sequence[TracedValue], position: int, name: str) -> TracedArray:
    """Returns the operand at a position, the only one that depends on the images.

    Raises:
      UntraceableError: if another operand depends on them, too.
    """
    seen = operands[position]
    if (
        not isinstance(seen, TracedArray)
        or sum(isinstance(operand, TracedArray) for operand in operands) > 1
    ):
        raise UntraceableError(f"the images decide how {name} works, not only on which values")
    return seen


def index_axis(seen: TracedArray, axis: int, first: np.ndarray, last: np.ndarray) -> TracedArray:
    """Returns the array whose index i along an axis covers the indices first[i] to last[i]."""
    cells = len(first)
    step = Fraction(seen.shape[axis], cells)
    low = min(Fraction(int(cell)) - step * i for i, cell in enumerate(first))
    high = max(Fraction(int(cell)) - step * i for i, cell in enumerate(last))
    return seen.resized(axis, cells, step, low, high)
