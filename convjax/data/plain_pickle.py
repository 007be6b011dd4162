"""Pickles of plain data: NumPy arrays, text, bytes, numbers, lists, tuples and dictionaries.

An ordinary unpickler calls whatever a file names. This one calls only functions of this module,
which stand for those of NumPy that pickles of arrays name and which check what they are given.
"""

import io
import math
import pickle
from typing import Any

import numpy as np

from convjax.data.dataset import DataError

# These make an object of a length that the file declares, before its content is read.
_ENDLESS = (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
_KINDS = "biuf"


class _DType:
    """Stands for `numpy.dtype`: a description such as "u1", and a byte order that follows."""

    def __init__(self, name: Any, *_: Any):
        self.dtype = np.dtype(_text(name))
        if self.dtype.kind not in _KINDS:
            raise pickle.UnpicklingError(f"arrays must hold numbers, got {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        if order not in "<>|=":
            raise pickle.UnpicklingError(f"unknown byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for `numpy.ndarray`, whose content follows."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        shape = tuple(shape)
        content = content.encode("latin1") if isinstance(content, str) else content
        if not (
            isinstance(dtype, _DType)
            and isinstance(content, bytes)
            and all(type(size) is int and size >= 0 for size in shape)
            and math.prod(shape) * dtype.dtype.itemsize == len(content)
        ):
            raise pickle.UnpicklingError("an array's shape and dtype must fit its bytes")
        values = np.frombuffer(content, dtype.dtype)
        self.array = values.reshape(shape, order="F" if fortran else "C")


def _new_array(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, codec: Any) -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes must be text in latin1, got {codec!r}")
    return text.encode("latin1")


_ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("_codecs", "encode"): _encode,
}


# Not the unpickler in C, which allocates as much memory as the number of a memo asks for.
class _Unpickler(pickle._Unpickler):
    dispatch = {  # noqa: RUF012  # as in the base class
        code: method
        for code, method in pickle._Unpickler.dispatch.items()
        if code not in {mark[0] for mark in _ENDLESS}
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is neither an array nor plain data")
        return _ADMITTED[module, name]


def read_pickle(content: bytes, source: object) -> Any:
    """Returns the data of a pickle; nothing that it names is imported or called.

    Text of Python 2 is returned as bytes, but as text where it is the key of a dictionary.

    Args:
      content: the pickle.
      source: where it comes from, for messages.

    Raises:
      DataError: if the pickle is damaged, or holds anything but numeric arrays, text, bytes,
        numbers, None, lists, tuples and dictionaries.

    Examples:
      >>> import pickle
      >>> import numpy as np
      >>> read_pickle(pickle.dumps({"a": np.arange(3), b"b": [1.5]}, 2), "here")
      {'a': array([0, 1, 2]), 'b': [1.5]}
      >>> import os
      >>> read_pickle(pickle.dumps(os.system), "here")
      Traceback (most recent call last):
      convjax.data.dataset.DataError: here must be a pickle of arrays and plain data, got ...
    """
    try:
        return _plain(_Unpickler(io.BytesIO(content), encoding="bytes").load())
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises any kind of error
        raise DataError(
            f"{source} must be a pickle of arrays and plain data, got "
            f"{type(error).__name__}: {error}. It may be damaged, or made to harm: get it again "
            "from its publisher."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {_text(key): _plain(entry) for key, entry in value.items()}
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise pickle.UnpicklingError(f"{type(value).__name__} is not plain data")


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value
