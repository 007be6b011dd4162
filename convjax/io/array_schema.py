"""Schemas of files of arrays: their types, and shapes that agree with each other."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convjax.io.npz import Arrays


class Axis(NamedTuple):
    """An axis of an array: what it counts, and whether it may be empty if nothing was stored."""

    what: str
    optional: bool = False


class Field(NamedTuple):
    """The rule for an array: the allowed kinds of its dtype ("i" for integers), and its axes."""

    kinds: str
    axes: tuple[Axis, ...] = ()


def check_fields(
    arrays: Arrays, fields: Mapping[str, Field], sizes: Mapping[str, int] | None = None
) -> None:
    """Checks that arrays exist and have their types, and that axes of one name have one length.

    Args:
      arrays: the arrays of a file by their names.
      fields: the rules by the names of the arrays; the first array with an axis sets its length.
      sizes: lengths of axes that are known before.

    Raises:
      ValueError: if a rule is broken; the message names the array, but not the file.
    """
    known = dict(sizes or {})
    for name, (kinds, axes) in fields.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        array = arrays[name]
        # An array without entries may have any type.
        if array.size and (array.dtype.kind not in kinds or array.dtype.itemsize > _widest(kinds)):
            raise ValueError(f"{name} is of the type {array.dtype}")
        fits = array.ndim == len(axes) and all(
            size == known.setdefault(axis.what, size) or (axis.optional and not size)
            for size, axis in zip(array.shape, axes, strict=True)
        )
        if not fits:
            wanted = ", ".join(
                f"{axis.what} {known[axis.what]}" if axis.what in known else axis.what
                for axis in axes
            )
            raise ValueError(f"{name} has the shape {array.shape}, its axes are ({wanted})")


def _widest(kinds: str) -> int | float:
    """Returns the most bytes of an entry; for numbers, the widest that every machine computes."""
    return {"U": np.inf, "u": 1}.get(kinds, 8)
