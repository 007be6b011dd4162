"""What arrays of a file must be: their types, and shapes that agree with each other."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from convjax.io.npz import Arrays


class Axis(NamedTuple):
    """An axis of an array: what it counts, and whether it may be empty where nothing was kept."""

    what: str
    optional: bool = False


class Field(NamedTuple):
    """What an array must be: one of NumPy's kinds of types ("i" for integers), and its axes."""

    kinds: str
    axes: tuple[Axis, ...] = ()


def check_fields(
    arrays: Arrays, fields: Mapping[str, Field], sizes: Mapping[str, int] | None = None
) -> None:
    """Checks that the arrays are there, of their types, and that axes of one name are as long.

    Args:
      fields: by the names of the arrays; the first with an axis says how long it is.
      sizes: of axes that are known before.

    Raises:
      ValueError: if not; the message says which array and why, without the file's name.
    """
    known = dict(sizes or {})
    for name, (kinds, axes) in fields.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        array = arrays[name]
        # An array without entries may be of any type: nothing was kept in it.
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


def _widest(kinds: str) -> Any:
    """Returns the bytes of the widest entry: of numbers those of every machine's arithmetic."""
    return {"U": np.inf, "u": 1}.get(kinds, 8)
