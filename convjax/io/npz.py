"""Files of named arrays (.npz), read in bounded memory and without executing anything.

`np.load` trusts the headers: it allocates the declared size and unpacks members of any size. Here
the declarations are compared with each other and with the file before anything is allocated.
"""

import math
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from convjax._checks import describe_value

Arrays = dict[str, npt.NDArray[Any]]

# Raises an exception if the arrays that a file declares are not those that it should have, and
# returns the names of those to be read, or None for all. Arrays of more than a few thousand bytes
# have their shape and dtype, but hold zeros.
Check = Callable[[Arrays], Collection[str] | None]

# Bytes that all compressed members may unfold to: four times a record of 1,024 rows of a thousand
# layers and parameters. Uncompressed members take no more than the file itself.
LIMIT = 2 << 30

# Bytes of the directory of an archive: ten thousand arrays with names of 150 letters.
_DIRECTORY = 2 << 20

# Members up to this length are read before the arrays are checked.
_SMALL = 1 << 12

# Booleans, integers, real and complex numbers, and text, which NumPy stores as plain bytes. Objects
# would be unpickled; no file of this project has structures or dates.
_KINDS = "biufcU"
_SUFFIX = ".npy"
_ENCRYPTED = 1  # a bit of a member's flags


class NpzError(ValueError):
    """A file is not a complete .npz file of plain arrays; the message does not name the file."""


def read_npz(
    path: str | os.PathLike[str], *, limit: int = LIMIT, check: Check | None = None
) -> Arrays:
    """Returns the arrays of an .npz file by their names. Nothing in the file is executed.

    Memory is bounded by the length of the file plus `limit`, whatever its members declare.

    Args:
      path: the file.
      limit: bytes that all compressed members may unfold to.
      check: called with the declared arrays before any is unfolded; what it raises is passed on.

    Raises:
      FileNotFoundError: if the file does not exist.
      NpzError: if it cannot be read, is damaged, contains anything but plain arrays of different
        names, or unfolds to more than `limit`.
      TypeError: if `path` is not a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file's path, got {describe_value(path)}.")
    if "\0" in os.fsdecode(path):
        raise NpzError("it cannot be read: embedded null byte")
    try:
        # Checked before opening, which would wait for a writer if the path is a pipe.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise NpzError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}")
        # Opened here, because ZipFile does not close a damaged file.
        with open(path, "rb") as raw:
            return read_npz_file(raw, limit=limit, check=check)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NpzError(f"it cannot be read: {error.strerror or error}") from error


def read_npz_file(
    raw: BytesIO | BufferedReader, *, limit: int = LIMIT, check: Check | None = None
) -> Arrays:
    """Returns the arrays of an open .npz file, as `read_npz` does.

    Raises:
      NpzError: as `read_npz`.

    Examples:
      >>> import io
      >>> file = io.BytesIO()
      >>> np.savez(file, x=np.arange(3))
      >>> read_npz_file(file)
      {'x': array([0, 1, 2])}
    """
    with _damage_reported():
        length = raw.seek(0, os.SEEK_END)
        _check_directory(raw, length)
        archive = zipfile.ZipFile(raw)
        members = {m.filename.removesuffix(_SUFFIX): m for m in archive.infolist()}
        _check_members(archive.infolist(), length, limit)
        declared = {name: _declared(archive, m) for name, m in members.items()} if check else {}
    names = check(declared) if check else None
    with _damage_reported():
        return {n: _array(archive, m) for n, m in members.items() if names is None or n in names}


@contextmanager
def _damage_reported() -> Iterator[None]:
    """Turns exceptions of reading, and warnings, into NpzError."""
    try:
        with warnings.catch_warnings():
            # NumPy and Python's parser warn of headers that no writer makes.
            for kind in (UserWarning, SyntaxWarning, DeprecationWarning):
                warnings.simplefilter("error", kind)
            yield
    except NpzError:
        raise
    except OSError as error:
        # Damaged offsets may point outside the file.
        raise NpzError(f"it cannot be read: {error.strerror or type(error).__name__}") from error
    except Exception as error:  # of many kinds, from zipfile, zlib, NumPy and its parser
        # NumPy's message is left out, because it advises unsafe loading.
        raise NpzError(f"it is damaged or not an .npz file, {type(error).__name__}") from error


def _check_directory(raw: BytesIO | BufferedReader, length: int) -> None:
    """Checks the length of the archive's directory, which Python reads as a whole.

    It stands in a record of 22 bytes and a comment at the end of the file, or, if it is 4 GiB or
    more, in one of 56 bytes before that and a locator of 20.
    """
    raw.seek(max(length - (22 + 56 + 20 + (1 << 16)), 0))
    end = raw.read()
    at = end.rfind(b"PK\5\6")
    if at < 0 or len(end) < at + 22:
        return  # not an archive, which `ZipFile` reports
    size = struct.unpack_from("<I", end, at + 12)[0]
    if at >= 76 and end[at - 20 : at - 16] == b"PK\6\7":
        size = struct.unpack_from("<Q", end, at - 76 + 40)[0]
    if size > _DIRECTORY:
        raise NpzError(
            f"its directory must have at most {_DIRECTORY} bytes, about ten thousand arrays, got "
            f"{size}"
        )


def _check_members(members: list[zipfile.ZipInfo], length: int, limit: int) -> None:
    """Compares the declarations in the directory with the file's length and the limit."""
    names = [member.filename for member in members]
    foreign = [name for name in names if not name.endswith(_SUFFIX)]
    if foreign:
        raise NpzError(f"it contains {foreign[0]!r:.80}, which is not an array")
    if len(set(names)) < len(names):
        raise NpzError("two of its arrays have the same name")
    for member in members:
        # bzip2 and LZMA take additional memory that cannot be bounded here.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NpzError(f"{member.filename!r:.80} has a compression that NumPy does not write")
        if member.flag_bits & _ENCRYPTED:
            raise NpzError(f"{member.filename!r:.80} is encrypted")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise NpzError(f"{member.filename!r:.80} declares two different lengths")
    # Members that share their bytes would unfold a small file many times.
    if sum(member.compress_size for member in members) > length:
        raise NpzError("its members declare more bytes than the file has")
    unfolded = sum(m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED)
    if unfolded > limit:
        raise NpzError(f"it must unfold to at most {limit} bytes, got {unfolded}")


def _header(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Returns shape and dtype of a member, which must declare as many bytes as the member has."""
    name = member.filename.removesuffix(_SUFFIX)
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:  # 3.0 is for the names of structures
            raise NpzError(f"{name!r:.80} has the npy version {version}")
        shape, _, dtype = _HEADERS[version](file)
        if dtype.kind not in _KINDS or not dtype.itemsize:
            # Entries of size 0 would let a few bytes declare any number of them.
            raise NpzError(
                f"{name!r:.80} must be plain numbers or text, got the type {dtype!s:.40}"
            )
        declared = math.prod(shape) * dtype.itemsize
        there = member.file_size - file.tell()
    if min(shape, default=0) < 0 or declared != there:
        raise NpzError(
            f"{name!r:.80} declares {declared} bytes, the shape {shape!s:.80} of {dtype}, "
            f"but has {there}"
        )
    return shape, dtype


def _declared(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Returns a small array, or one of the declared shape and dtype that takes no memory."""
    if member.file_size <= _SMALL:
        return _array(archive, member)
    shape, dtype = _header(archive, member)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    _header(archive, member)
    # Opened again: Python compares no checksum after a seek.
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind == "U":
        "".join(array.ravel().tolist()).encode()  # raises for invalid characters
    return array


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
