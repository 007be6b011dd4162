"""Numbers of a page: each array once, as the bytes that the browser's typed arrays take over."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Reference = dict[str, int]

_INT32 = np.iinfo(np.int32)


class TypedArrays:
    """Arrays that charts refer to; what is added twice is kept once."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def add(self, values: npt.ArrayLike) -> Reference:
        """Keeps an array of any shape and returns how a chart refers to it.

        float32 stays so, whole numbers become int32 where they fit; all others are float64, which
        is what JavaScript computes in.
        """
        array = np.asarray(values)
        if array.dtype.kind in "iub" and (
            not array.size or _INT32.min <= array.min() <= array.max() <= _INT32.max
        ):
            array = array.astype("<i4")
        else:
            array = array.astype("<f4" if array.dtype in (np.float32, np.float16) else "<f8")
        key = (array.dtype.str[1:], array.shape, array.tobytes())
        return {"array": self._places.setdefault(key, len(self._places))}

    def rows(self, values: npt.ArrayLike) -> list[Reference]:
        """Keeps a matrix and returns how charts refer to its rows."""
        matrix = np.asarray(values)
        return [self.add(matrix) | {"row": row} for row in range(len(matrix))]

    def plain(self) -> list[dict[str, Any]]:
        """Returns all arrays as plain data: type, shape and the bytes in base64."""
        return [
            {"type": kind, "shape": shape, "data": base64.b64encode(data).decode("ascii")}
            for kind, shape, data in self._places
        ]
