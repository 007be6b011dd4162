"""Files of named arrays (.npz), read in bounded memory and without executing anything.

`np.load` trusts the headers: it allocates the declared size and unpacks members of any size. Here
the declarations are compared with each other and with the file before anything is allocated.
"""

import math
import os
import stat
import warnings
import zipfile
from io import BufferedReader, BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from convjax._checks import describe_value

Arrays = dict[str, npt.NDArray[Any]]

# Bytes that all compressed members may unfold to: four times a record of 1,024 rows of a thousand
# layers and parameters. Uncompressed members take no more than the file itself.
LIMIT = 2 << 30

# Booleans, integers, real and complex numbers, and text, which NumPy stores as plain bytes. Objects
# would be unpickled; no file of this project has structures or dates.
_KINDS = "biufcU"
_SUFFIX = ".npy"
_ENCRYPTED = 1  # a bit of a member's flags


class NpzError(ValueError):
    """A file is not a complete .npz file of plain arrays; the message does not name the file."""


def read_npz(path: str | os.PathLike[str], *, limit: int = LIMIT) -> Arrays:
    """Returns the arrays of an .npz file by their names. Nothing in the file is executed.

    Memory is bounded by the length of the file plus `limit`, whatever its members declare.

    Args:
      path: the file.
      limit: bytes that all compressed members may unfold to.

    Raises:
      FileNotFoundError: if the file does not exist.
      NpzError: if it cannot be read, is damaged, contains anything but plain arrays of different
        names, or unfolds to more than `limit`.
      TypeError: if `path` is not a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file's path, got {describe_value(path)}.")
    try:
        # Checked before opening, which would wait for a writer if the path is a pipe.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise NpzError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}")
        # Opened here, because ZipFile does not close a damaged file.
        with open(path, "rb") as raw:
            return read_npz_file(raw, limit=limit)
    except (FileNotFoundError, NpzError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise NpzError(f"it cannot be read: {reason}") from error


def read_npz_file(raw: BytesIO | BufferedReader, *, limit: int = LIMIT) -> Arrays:
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
    try:
        with warnings.catch_warnings():
            # NumPy and Python's parser warn of headers that no writer makes.
            for kind in (UserWarning, SyntaxWarning, DeprecationWarning):
                warnings.simplefilter("error", kind)
            return _read(raw, limit)
    except NpzError:
        raise
    except OSError as error:
        # Damaged offsets may point outside the file.
        raise NpzError(f"it cannot be read: {error.strerror or type(error).__name__}") from error
    except Exception as error:  # of many kinds, from zipfile, zlib, NumPy and its parser
        # NumPy's message is left out, because it advises unsafe loading.
        raise NpzError(f"it is damaged or not an .npz file, {type(error).__name__}") from error


def _read(raw: BytesIO | BufferedReader, limit: int) -> Arrays:
    length = raw.seek(0, os.SEEK_END)
    with zipfile.ZipFile(raw) as archive:
        members = archive.infolist()
        _check_members(members, length, limit)
        return {
            member.filename.removesuffix(_SUFFIX): _array(archive, member) for member in members
        }


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


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Reads a member, whose header must declare as many bytes as the member has."""
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
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind == "U":
        "".join(array.ravel().tolist()).encode()  # raises for invalid characters
    return array


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
