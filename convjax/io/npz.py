"""Files of named arrays (.npz), read without executing anything and in bounded memory.

NumPy's own reader believes what a file says of itself: it allocates what a header declares and
unpacks whatever a member unfolds to. Here every declaration is compared with the others before
anything is allocated.
"""

import math
import os
import stat
import warnings
import zipfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

# What compressed members may unfold to, together, in bytes: four times a record of 1,024 rows of a
# thousand layers and parameters. Others take no more than the file itself.
LIMIT = 2 << 30

# Booleans, integers, real and complex numbers, and text: what NumPy stores as plain bytes. Objects
# would be unpickled; structures and dates are in no file of this project.
_KINDS = "biufcU"
_SUFFIX = ".npy"
_ENCRYPTED = 1  # a bit of a member's flags


class NpzError(ValueError):
    """A file is no whole .npz file of plain arrays; the message says why, without its name."""


def read_npz(path: str | os.PathLike[str], *, limit: int = LIMIT) -> Arrays:
    """Returns the arrays of an .npz file by their names. Nothing in the file is executed.

    Memory is bounded by the length of the file and `limit`, whatever its members declare.

    Args:
      limit: bytes that compressed members may unfold to, together.

    Raises:
      FileNotFoundError: if there is no such file.
      ArraysError: if it cannot be read, is damaged, holds anything but plain arrays, each under a
        name of its own, or unfolds to more than `limit`.
      TypeError: if path is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a file's path, got {type(path).__name__}: {path!r:.80}.")
    try:
        # Before it is opened, which would wait for a writer where it is a pipe.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise NpzError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'no file'}")
        # Opened here, because ZipFile leaves a damaged file open.
        with open(path, "rb") as raw:
            return read_npz_file(raw, limit=limit)
    except (FileNotFoundError, NpzError):
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise NpzError(f"it cannot be read, {reason}") from error


def read_npz_file(raw: IO[bytes], *, limit: int = LIMIT) -> Arrays:
    """Returns the arrays of an .npz file that is open, as `read_npz` does.

    Raises:
      ArraysError: as `read_npz`.
    """
    try:
        with warnings.catch_warnings():
            # NumPy and Python's parser warn of headers that no writer leaves.
            for kind in (UserWarning, SyntaxWarning, DeprecationWarning):
                warnings.simplefilter("error", kind)
            return _read(raw, limit)
    except NpzError:
        raise
    except OSError as error:
        # A damaged file may also send the reader to places that it does not have.
        raise NpzError(f"it cannot be read, {error.strerror or type(error).__name__}") from error
    except Exception as error:  # zipfile, zlib, NumPy and its parser, each with kinds of its own
        # Not NumPy's own words, which advise to load what may be dangerous.
        raise NpzError(f"it is damaged or no .npz file, {type(error).__name__}") from error


def _read(raw: IO[bytes], limit: int) -> Arrays:
    length = raw.seek(0, os.SEEK_END)
    with zipfile.ZipFile(raw) as archive:
        members = archive.infolist()
        _check_members(members, length, limit)
        return {
            member.filename.removesuffix(_SUFFIX): _array(archive, member) for member in members
        }


def _check_members(members: list[zipfile.ZipInfo], length: int, limit: int) -> None:
    """Compares what the directory says of its members with the file's length and the limit."""
    names = [member.filename for member in members]
    foreign = [name for name in names if not name.endswith(_SUFFIX)]
    if foreign:
        raise NpzError(f"it holds {foreign[0]!r:.80}, which is no array")
    if len(set(names)) < len(names):
        raise NpzError("two of its arrays have one name")
    for member in members:
        # bzip2 and LZMA take memory of their own that this could not bound.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NpzError(f"{member.filename!r:.80} is compressed in a way that NumPy is not")
        if member.flag_bits & _ENCRYPTED:
            raise NpzError(f"{member.filename!r:.80} is encrypted")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise NpzError(f"{member.filename!r:.80} has two lengths")
    # Members that share their bytes would unfold one small file many times.
    if sum(member.compress_size for member in members) > length:
        raise NpzError("its members claim more bytes than the file has")
    unfolded = sum(m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED)
    if unfolded > limit:
        raise NpzError(f"it unfolds to {unfolded} bytes, of which at most {limit} are read")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Reads a member whose header declares just as many bytes as the member has."""
    name = member.filename.removesuffix(_SUFFIX)
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:  # 3.0 is for the names of structures
            raise NpzError(f"{name!r:.80} has the npy version {version}")
        shape, _, dtype = _HEADERS[version](file)
        if dtype.kind not in _KINDS or not dtype.itemsize:
            # Without a size, a header of a few bytes may declare any number of entries.
            raise NpzError(f"{name!r:.80} is of the type {dtype!s:.40}, no plain numbers or text")
        declared = math.prod(shape) * dtype.itemsize
        there = member.file_size - file.tell()
        if min(shape, default=0) < 0 or declared != there:
            raise NpzError(
                f"{name!r:.80} declares {declared} bytes, the shape {shape!s:.80} of {dtype}, "
                f"and has {there}"
            )
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind == "U":
        "".join(array.ravel().tolist()).encode()  # raises for what is no text
    return array


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
