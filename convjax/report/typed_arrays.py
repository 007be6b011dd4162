"""The numbers of a page: each array once, as the bytes of the browser's typed arrays."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

Reference = dict[str, int]

_INT32 = np.iinfo(np.int32)


class TypedArrays:
    """The arrays of a page, each stored once however often it is added.

    Examples:
      >>> from convjax.report.typed_arrays import TypedArrays
      >>> arrays = TypedArrays()
      >>> arrays.add([1, 2]), arrays.add([0.5]), arrays.add([1, 2])
      ({'array': 0}, {'array': 1}, {'array': 0})
    """

    def __init__(self) -> None:
        self._places: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def add(self, values: npt.ArrayLike) -> Reference:
        """Stores an array of any shape and returns the reference to it for charts.

        float32 stays float32, integers become int32 if they fit, and everything else becomes
        float64, in which JavaScript computes.
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
        """Stores a matrix and returns a reference to each of its rows."""
        matrix = np.asarray(values)
        return [self.add(matrix) | {"row": row} for row in range(len(matrix))]

    def plain(self) -> list[dict[str, Any]]:
        """Returns all arrays as plain data: type, shape and bytes in base64."""
        return [
            {"type": kind, "shape": shape, "data": base64.b64encode(data).decode("ascii")}
            for kind, shape, data in self._places
        ]
