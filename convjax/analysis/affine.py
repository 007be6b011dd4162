"""Which pixels of an image each element of an array sees, as affine spans along both axes.

Index i of an axis of rows or columns sees the pixels from stride·i + low to stride·i + high. Each
operation of a traced program changes strides and ends by a formula of its own; paths that meet are
joined. Source: Araujo, Norris and Sim, "Computing receptive fields of convolutional neural
networks" (https://distill.pub/2019/computing-receptive-fields), for a chain and for branches.
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
    """What one index of an axis sees along the image, in pixels.

    Behind a transposed convolution the stride is a fraction, and cells differ by their phase: the
    span then holds what the cells of all phases see.

    Attributes:
      stride: pixels from one index to the next.
      low, high: first and last pixel that index 0 sees, both infinite where all are seen.
    """

    stride: Number
    low: Number
    high: Number

    @property
    def size(self) -> int | float:
        """How many pixels, infinite for all of the image, however large."""
        reach = self.high - self.low
        return math.inf if reach == math.inf else math.floor(reach) + 1

    @property
    def padding(self) -> Number:
        """How far index 0 reaches beyond the first pixel: the padding of one kernel that would see
        what the layers together see."""
        return -self.low

    def through(self, step: Number, first: Number, last: Number) -> "Span":
        """Returns the span of an axis whose index i takes in this one's step·i + first … + last."""
        if self.size == math.inf:
            return self
        low, high = self.low + self.stride * first, self.high + self.stride * last
        return Span(self.stride * step, low, high)


PIXEL_SPAN = Span(Fraction(1), Fraction(0), Fraction(0))
WHOLE_SPAN = Span(Fraction(0), -math.inf, math.inf)


class UntraceableError(Exception):
    """No span describes what the result of an operation sees; the message says why."""


class AxisFactor(NamedTuple):
    """A factor of an axis: letter "H" or "W" where its index is a row or a column, else ""."""

    size: int
    letter: str = ""


@dataclass(frozen=True)
class TracedArray:
    """An array, by what its elements see of the image.

    Attributes:
      axes: for each axis its factors, the slowest first; those of size 1 without a letter left out.
      spans: of the letters "H" and "W". Where no axis has the letter, the span is that of index 0:
        all elements see the same.
    """

    axes: tuple[tuple[AxisFactor, ...], ...]
    spans: Mapping[str, Span]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(atom.size for atom in axis) for axis in self.axes)

    def letters(self, axis: int) -> str:
        """Returns the letters of an axis along which there is more than one index."""
        return "".join(atom.letter for atom in self.axes[axis] if atom.size > 1)

    def axis_of(self, letter: str) -> int | None:
        """Returns the axis whose index is a row or a column and nothing else."""
        for i, axis in enumerate(self.axes):
            if [atom.letter for atom in axis] == [letter]:
                return i
        return None

    def folded(self) -> "TracedArray":
        """Returns the array with repeated rows or columns as rows and columns of their own.

        Repeated k times, index i of an axis is what index ⌊i/k⌋ was. The factors are kept apart as
        long as nothing asks, because a channel axis flattened with the rows looks the same.
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
        """Returns the array in a shape of as many axes, or of any where it has none, in which axes
        of size 1 are repeated."""
        axes: list[tuple[AxisFactor, ...]] = [(AxisFactor(size),) for size in shape]
        for i, (size, axis) in enumerate(zip(self.shape, self.axes, strict=False)):
            if size == shape[i]:
                axes[i] = axis
        return self.with_axes(axes)

    def with_axes(self, axes: Sequence[Sequence[AxisFactor]]) -> "TracedArray":
        """Returns the array with other axes; a letter that is left out stays at its index 0."""
        return replace(self, axes=tuple(map(normalized_axis, axes)))

    def resized(
        self, axis: int, size: int, step: Number, first: Number, last: Number
    ) -> "TracedArray":
        """Returns the array whose index i along one axis takes in step·i + first … + last.

        Raises:
          LostError: if rows or columns are only a part of that axis.
        """
        seen = self.folded() if self.letters(axis) else self
        atoms = seen.axes[axis]
        if len(atoms) > 1:  # rows or columns of which there is one do not matter here
            atoms = tuple(atom for atom in atoms if atom.size > 1)
        letter = "".join(atom.letter for atom in atoms)
        if letter and len(atoms) > 1:
            raise UntraceableError("rows or columns share an axis with something else")
        axes = [*seen.axes[:axis], (AxisFactor(size, letter),), *seen.axes[axis + 1 :]]
        spans = dict(seen.spans)
        if letter:
            spans[letter] = spans[letter].through(step, first, last)
        return TracedArray(tuple(map(normalized_axis, axes)), spans)

    def without(self, axes: Sequence[int]) -> "TracedArray":
        """Returns the array with axes summed over, so that each element sees all along them."""
        gone = {letter for axis in axes for letter in self.letters(axis)}
        spans = {k: WHOLE_SPAN if k in gone else span for k, span in self.spans.items()}
        kept = [axis for i, axis in enumerate(self.axes) if i not in axes]
        return replace(self, axes=tuple(kept), spans=spans)

    def reshaped(self, shape: Sequence[int]) -> "TracedArray":
        """Returns the array in another shape.

        Raises:
          LostError: if rows or columns are cut into parts of unequal size.
        """
        # Axes of size 1 have a place, too, so that one of one row keeps its own.
        left = [atom for axis in self.axes for atom in axis or (AxisFactor(1),)][::-1]
        spans = dict(self.spans)
        axes = []
        for size in shape:
            axis: list[AxisFactor] = []
            room = size
            while room > 1:
                atom = left.pop()
                if atom.size > room:
                    inner, rest = divmod(atom.size, room)
                    if rest:
                        raise UntraceableError(
                            f"an axis of {atom.size} is cut into parts of {room}"
                        )
                    # Index = outer·inner + rest: what lies within a part is no row of its own.
                    if atom.letter:
                        span = spans[atom.letter]
                        spans[atom.letter] = span.through(inner, 0, inner - 1)
                    left.append(AxisFactor(inner))
                    atom = AxisFactor(room, atom.letter)
                if room % atom.size:
                    raise UntraceableError(f"axes are joined to {size} across their ends")
                axis.append(atom)
                room //= atom.size
            if size == 1 and left and left[-1].size == 1:
                axis.append(left.pop())
            axes.append(axis)
        return replace(self, axes=tuple(map(normalized_axis, axes)), spans=spans)


def normalized_axis(axis: Sequence[AxisFactor]) -> tuple[AxisFactor, ...]:
    """Returns the factors of an axis in the one way in which they are written."""
    found: list[AxisFactor] = []
    for atom in axis:
        if atom.size == 1 and not atom.letter:
            continue
        if found and not atom.letter and not found[-1].letter:
            found[-1] = AxisFactor(found[-1].size * atom.size)
        else:
            found.append(atom)
    return tuple(found)


def join(arrays: Sequence[TracedArray]) -> TracedArray:
    """Returns the array of which each element sees what it sees in any of several of one shape.

    Raises:
      LostError: if no span describes that, as where rows move at different strides.
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
    """Returns the factors of an axis that two arrays have in common."""
    lettered = [axis for axis in (mine, its) if any(atom.letter for atom in axis)]
    if not lettered:
        return mine
    if len(lettered) == 2 and mine != its:
        raise UntraceableError("rows and columns meet in another order")
    return lettered[0]


def _joined_span(letter: str, a: TracedArray, b: TracedArray) -> Span:
    first, second = a.spans[letter], b.spans[letter]
    if WHOLE_SPAN in (first, second):
        return WHOLE_SPAN
    # How many indices there are, 0 where no axis is one of this letter.
    counts = [
        max((atom.size for axis in seen.axes for atom in axis if atom.letter == letter), default=0)
        for seen in (a, b)
    ]
    if (counts[0] > 1) != (counts[1] > 1):
        raise UntraceableError("a path that sees one place meets one that sees many")
    if all(counts) and first.stride != second.stride:
        raise UntraceableError(
            f"paths with strides of {first.stride} and {second.stride} pixels meet"
        )
    stride = first.stride if counts[0] else second.stride
    return Span(stride, min(first.low, second.low), max(first.high, second.high))


class TracedConstant:
    """A value that depends neither on images nor on parameters, computed where a rule asks."""

    def __init__(self, compute: Callable[[], Any]):
        self._compute = compute

    @cached_property
    def value(self) -> np.ndarray:
        return self._compute()


# What a value sees: an error where that cannot be told; a constant or None (a parameter, say) where
# it does not depend on the images.
TracedValue = TracedArray | UntraceableError | TracedConstant | None

Rule = Callable[[JaxprEqn, Sequence[TracedValue]], Sequence[TracedValue]]


def shape_of(value: Any) -> tuple[int, ...]:
    """Returns the shape of a variable of a program, () of what has none."""
    return getattr(value.aval, "shape", ())


def only_traced(operands: Sequence[TracedValue], position: int, name: str) -> TracedArray:
    """Returns the operand at a position, where no other depends on the images."""
    seen = operands[position]
    if (
        not isinstance(seen, TracedArray)
        or sum(isinstance(operand, TracedArray) for operand in operands) > 1
    ):
        raise UntraceableError(f"the images decide how {name} works, not only on what")
    return seen


def index_axis(seen: TracedArray, axis: int, first: np.ndarray, last: np.ndarray) -> TracedArray:
    """Returns an axis whose index i sees the cells from first[i] to last[i]."""
    cells = len(first)
    step = Fraction(seen.shape[axis], cells)
    low = min(Fraction(int(cell)) - step * i for i, cell in enumerate(first))
    high = max(Fraction(int(cell)) - step * i for i, cell in enumerate(last))
    return seen.resized(axis, cells, step, low, high)
