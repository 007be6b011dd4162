"""Reading IDX files, gzipped or not.

Format: two zero bytes, the type (8: unsigned byte; 12: 32-bit integer, big-endian), the number of
axes, each axis as a big-endian 32-bit number, then the entries in C order.
"""

import errno
import gzip
import math
import os
import stat
import struct
import zlib
from io import BufferedReader
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from convjax.data.dataset import DataError

# By the number of axes: labels, rows of whole numbers, images.
_DTYPES: dict[int, np.dtype] = {1: np.dtype(np.uint8), 2: np.dtype(">i4"), 3: np.dtype(np.uint8)}
_TYPES = {1: "unsigned bytes", 2: "32-bit integers", 3: "unsigned bytes"}
_MAGIC = {1: bytes((0, 0, 8, 1)), 2: bytes((0, 0, 12, 2)), 3: bytes((0, 0, 8, 3))}
# By the third byte of a file.
_OTHER_TYPES = {
    b"\x09": "signed bytes",
    b"\x0b": "16-bit integers",
    b"\x0c": "32-bit integers",
    b"\x0d": "32-bit floats",
    b"\x0e": "64-bit floats",
}
# Deflate cannot shrink data further, so a header that declares more than this is wrong.
_MAX_DEFLATE_RATIO = 1032
# Twenty times the training images of MNIST: a small file may unfold to a thousand times its length.
_MAX_UNFOLDED_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20


def read_idx(path: str | os.PathLike[str], num_axes: int) -> Integer[np.ndarray, "..."]:
    """Returns the entries of one IDX file, of unsigned bytes or 32-bit integers.

    Memory is bounded by the length of the file, and for a compressed one by 1 GiB: its header is
    trusted only as far as data follow.

    Args:
      path: the file; compressed if its name ends in .gz.
      num_axes: 3 for images (N, H, W), 1 for labels (N,), 2 for rows (N, K) of 32-bit integers.

    Raises:
      DataError: for a missing, unreadable, truncated or damaged file, one that is named .gz and is
        not gzip, another magic number or number of axes, a length that differs from what the
        header declares, and a compressed file that unfolds to more than 1 GiB.
    """
    path = Path(path)
    if num_axes not in _MAGIC:
        raise DataError(
            f"num_axes must be 3 for images, 1 for labels or 2 for rows, got {num_axes!r}."
        )
    try:
        with _open(path) as file:
            longest = path.stat().st_size * (_MAX_DEFLATE_RATIO if _is_compressed(path) else 1)
            return _read_entries(file, path, num_axes, longest)
    except gzip.BadGzipFile as error:
        raise DataError(
            f"{path} is not a valid gzip file ({error}), although its name ends in .gz. Download "
            "it again, or drop .gz from the name of an uncompressed file."
        ) from error
    except (EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is a truncated or damaged gzip file ({error}). Download it again."
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def idx_image_offset(path: Path) -> tuple[int, tuple[int, int, int]]:
    """Returns where the pixels begin in an uncompressed file of images, and the shape (N, H, W).

    Raises:
      DataError: if the file is compressed, cannot be read, or has another header or length.
    """
    if _is_compressed(path):
        raise DataError(
            f"{path} is compressed, so single images cannot be read from it. Unpack it with "
            "gunzip, or load the data into memory."
        )
    try:
        with _open(path) as file:
            number, height, width = _read_header(file, path, 3)
            offset = file.tell()
            found = path.stat().st_size - offset
    except OSError as error:
        raise _unreadable(path, error) from error
    if found != number * height * width:
        raise _other_length(path, (number, height, width), _DTYPES[3], found)
    return offset, (number, height, width)


def check_same_content(path: Path, packed: Path) -> None:
    """Checks that a file and its compressed form, of which only one is read, have one content.

    Raises:
      DataError: if their lengths or checksums differ.
    """
    try:
        with packed.open("rb") as file:
            file.seek(max(0, packed.stat().st_size - 8))
            checksum, length = struct.unpack("<II", file.read().ljust(8, b"\0"))
        found = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if (zlib.crc32(found), len(found) & 0xFFFFFFFF) != (checksum, length):
        raise DataError(
            f"{path} must have the content of {packed}, got another: it is not known which is "
            "meant. Remove one of them."
        )


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    # Checked before opening, which would wait for a writer if the path is a pipe.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device")
    return gzip.open(path) if _is_compressed(path) else path.open("rb")


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist. Give the path of an IDX file.")
    return DataError(
        f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions."
    )


def _read_header(
    file: gzip.GzipFile | BufferedReader, path: Path, num_axes: int
) -> tuple[int, ...]:
    """Reads the header and returns the shape that it declares."""
    magic = _MAGIC[num_axes]
    header = file.read(4 * (1 + num_axes))
    if header[:4] != magic:
        fix = (
            "It is compressed: end its name in .gz."
            if header[:2] == b"\x1f\x8b"
            else f"Check that it is the IDX file of {'images' if num_axes == 3 else 'labels'}."
        )
        if header[:2] == b"\0\0" and header[2:3] in _OTHER_TYPES and header[3:4] == magic[3:]:
            fix = (
                f"It has {_OTHER_TYPES[header[2:3]]}, whose scale is not known: write pixels from "
                "0 to 255, or labels, as unsigned bytes."
            )
        if num_axes == 1 and header[:4] == _MAGIC[2]:
            fix = "It has rows of several numbers, as the labels of qmnist: load it by that name."
        raise DataError(
            f"{path} must start with {magic.hex(' ')}, as an IDX file of {_TYPES[num_axes]} "
            f"with {num_axes} ax{'es' if num_axes > 1 else 'is'} does, got "
            f"{header[:4].hex(' ') or 'an empty file'}. {fix}"
        )
    if len(header) < 4 * (1 + num_axes):
        raise DataError(f"{path} ends within the IDX header. Download it again.")
    shape = struct.unpack(f">{num_axes}I", header[4:])
    if 0 in shape:
        raise DataError(
            f"{path} must have at least one entry on each axis, got {_product(shape)} in its "
            "header. Check that the source is not empty."
        )
    return shape


def _read_entries(
    file: gzip.GzipFile | BufferedReader, path: Path, num_axes: int, longest: int
) -> Integer[np.ndarray, "..."]:
    """Reads header and entries; `longest` is the most that the file can hold, in bytes."""
    shape = _read_header(file, path, num_axes)
    dtype = _DTYPES[num_axes]
    declared = math.prod(shape) * dtype.itemsize
    if _is_compressed(path) and longest >= declared > _MAX_UNFOLDED_BYTES:
        raise DataError(
            f"{path} must unfold to at most {_MAX_UNFOLDED_BYTES} bytes, got "
            f"{_product(shape, dtype)} = {declared} in its header. If you trust the "
            "file, unpack it with gunzip first."
        )
    entries = bytearray()
    if declared <= longest:
        # One byte more than declared shows whether anything follows.
        while len(entries) <= declared:
            chunk = file.read(min(_CHUNK_BYTES, declared + 1 - len(entries)))
            if not chunk:
                break
            entries += chunk
    if len(entries) != declared:
        raise _other_length(path, shape, dtype, len(entries))
    return np.frombuffer(entries, dtype).reshape(shape)


def _other_length(path: Path, shape: tuple[int, ...], dtype: np.dtype, found: int) -> DataError:
    declared = math.prod(shape) * dtype.itemsize
    return DataError(
        f"{path} must hold {_product(shape, dtype)} = {declared} bytes as its header declares, got "
        f"{'more' if found > declared else 'fewer'}. Download it again."
    )


def _product(shape: tuple[int, ...], dtype: np.dtype = _DTYPES[1]) -> str:
    return " × ".join(map(str, (*shape, *[dtype.itemsize] * (dtype.itemsize > 1))))
