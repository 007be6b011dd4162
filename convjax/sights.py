"""What the values of a traced program see, as the rules for its operations take and return it."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from convjax.spans import LostError, Seen


class Constant:
    """A value that depends neither on images nor on parameters, computed where a rule asks."""

    def __init__(self, compute: Callable[[], Any]):
        self._compute = compute

    @cached_property
    def value(self) -> np.ndarray:
        return self._compute()


# What a value sees: an error where that cannot be told; a constant or None (a parameter, say) where
# it does not depend on the images.
Sight = Seen | LostError | Constant | None

Rule = Callable[[JaxprEqn, Sequence[Sight]], Sequence[Sight]]


def shape_of(value: Any) -> tuple[int, ...]:
    """Returns the shape of a variable of a program, () of what has none."""
    return getattr(value.aval, "shape", ())


def only(operands: Sequence[Sight], position: int, name: str) -> Seen:
    """Returns the operand at a position, where no other depends on the images."""
    seen = operands[position]
    if not isinstance(seen, Seen) or sum(isinstance(operand, Seen) for operand in operands) > 1:
        raise LostError(f"the images decide how {name} works, not only on what")
    return seen


def picked(seen: Seen, axis: int, first: np.ndarray, last: np.ndarray) -> Seen:
    """Returns an axis whose index i sees the cells from first[i] to last[i]."""
    cells = len(first)
    step = Fraction(seen.shape[axis], cells)
    low = min(Fraction(int(cell)) - step * i for i, cell in enumerate(first))
    high = max(Fraction(int(cell)) - step * i for i, cell in enumerate(last))
    return seen.resized(axis, cells, step, low, high)
