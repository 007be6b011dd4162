"""Picture files: the formats, whether a file is whole, and how many bits its numbers have."""

import importlib.util
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from convjax.data.dataset import DataError

# Not every format that Pillow recognises by its content: it passes PostScript and Windows metafiles
# to other programs, and some have no mark by which a damaged file could be told.
FORMATS = (
    "PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "QOI", "SGI",
)  # fmt: skip
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".qoi", ".sgi",
)  # fmt: skip

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_START_OF_SCAN = 0xDA
# Cameras write more behind the end of a JPEG; it is sought in this many bytes before all others.
_TAIL_BYTES = 1 << 16

_PILLOW = r"PIL\."
_IGNORED = ("ignore", None, UserWarning, re.compile(_PILLOW), 0)  # as in `warnings.filters`

_BITS_PER_SAMPLE = 258  # a tag of TIFF


def check_pillow(root: Path) -> None:
    """Raises DataError if Pillow is not installed, or set to fill up truncated files."""
    if importlib.util.find_spec("PIL") is None:
        raise DataError(
            f"decoding the images of {root} needs Pillow, which is not installed. Run pip install "
            '"convjax[data]".'
        )
    from PIL import ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES must be False, got True, with which the missing "
            f"pixels of truncated files in {root} would be grey. Set it to False; damaged files "
            "are then named."
        )


def _ignore_warnings() -> None:
    """Ignores Pillow's warnings of damaged metadata, and of a transparency that RGB does not have.

    The filter stays: `warnings.catch_warnings` in several threads may leave another thread's
    filters behind, with which all warnings of the process would be lost.
    """
    if warnings.filters[:1] != [_IGNORED]:
        warnings.filterwarnings("ignore", category=UserWarning, module=_PILLOW)


@contextmanager
def opened(path: Path, *, checksums: bool) -> Iterator[Any]:
    """Yields the picture of a whole file, not yet decoded.

    Pillow decodes the pixels of a PNG without comparing their checksums, and without its end.

    Args:
      path: the file.
      checksums: reads the file once to compare the checksums, which of these formats only PNG has.

    Raises:
      OSError: if the file cannot be read, or is truncated or damaged.
    """
    from PIL import Image

    _ignore_warnings()
    # Not by its path, from which Pillow maps uncompressed pixels into memory: those of a turned
    # TIFF file then arrive in rows of the wrong length.
    with path.open("rb") as file:
        start = file.read(12)
        if start.startswith(_PNG):
            _check_png(file, checksums=checksums)
        elif start.startswith(_JPEG):
            _check_jpeg(file)
        elif start[:4] == b"RIFF" and int.from_bytes(start[4:8], "little") + 8 > _size(file):
            raise OSError("the file is truncated: it is shorter than its header declares")
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            yield image


def stored_bits(image: Any) -> int:
    """Returns how many bits a number in a picture's file has; of those that Pillow scales, 8.

    Args:
      image: not yet decoded, except that of a TIFF file.
    """
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    if image.mode.startswith("I"):
        return 16
    decoder, *_, args = image.tile[0] if image.tile else ("", "")
    if image.format == "PPM" and isinstance(args, tuple):
        return 16 if args[-1] > 0xFF else 8
    raw_mode = args[0] if isinstance(args, tuple) and args else args
    return 16 if ";16" in str(raw_mode) or decoder == "SGI16" else 8


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _check_png(file: BinaryIO, *, checksums: bool) -> None:
    size = _size(file)
    file.seek(max(0, size - len(_PNG_END)))
    if not checksums and file.read() == _PNG_END:
        return
    file.seek(len(_PNG))
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        length = int.from_bytes(head[:4], "big")
        if len(head) < 8 or file.tell() + length + 4 > size:
            raise OSError("the file is truncated: it ends before the end mark of a PNG")
        kind = head[4:]
        # Decoders ignore what is wrong with chunks that are not critical, in lower case.
        if checksums and kind[:1].isupper():
            found = zlib.crc32(file.read(length), zlib.crc32(kind))
            if found != int.from_bytes(file.read(4), "big"):
                raise OSError(f"the file is damaged: the checksum of {kind!r} is wrong")
        else:
            file.seek(length + 4, os.SEEK_CUR)


def _check_jpeg(file: BinaryIO) -> None:
    size = _size(file)
    file.seek(2)
    marker = b""
    while marker[1:] != bytes([_START_OF_SCAN]):
        while (marker := file.read(2)) == b"\xff\xff":  # bytes that fill up
            file.seek(-1, os.SEEK_CUR)
        if len(marker) == 2 and marker[0] != 0xFF:
            return  # no marker: the decoder says what is wrong
        # An end mark before the pixels is that of a smaller picture in the metadata.
        file.seek(max(int.from_bytes(file.read(2), "big"), 2) - 2, os.SEEK_CUR)
        if len(marker) < 2 or file.tell() >= size:
            raise OSError("the file is truncated: it ends before the pixels of a JPEG")
    start = file.tell()
    for first in (max(start, size - _TAIL_BYTES), start):
        file.seek(first)
        if _JPEG_END in file.read():
            return
    raise OSError("the file is truncated: it lacks the end mark of a JPEG")
