"""MNIST and Fashion-MNIST from their four IDX files, gzipped or not.

Format: two zero bytes, the type (8: unsigned byte), the number of axes, each axis as a big-endian
32-bit number, then the entries in C order.
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
from jaxtyping import UInt8

from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.paths import is_folder

_UNSIGNED_BYTE = 8
_MAGIC = {1: bytes((0, 0, _UNSIGNED_BYTE, 1)), 3: bytes((0, 0, _UNSIGNED_BYTE, 3))}
# Deflate cannot shrink data further, so a header that declares more than this is wrong.
_MAX_DEFLATE_RATIO = 1032
# Twenty times the training images of MNIST: a small file may unfold to a thousand times its length.
_MAX_UNFOLDED_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 20
_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
# Both sets use the same file names; the first training labels tell them apart.
_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}
IDX_DATASETS = tuple(_FIRST_LABELS)


def find_idx_files(folder: Path, name: str) -> list[Path] | None:
    """Returns the four files of a data set, in `folder/name` or in `folder` itself.

    The subfolder comes first, so that the files of several data sets can lie side by side.

    Args:
      folder: where to search.
      name: "mnist" or "fashion_mnist".

    Returns:
      Paths of training images and labels, test images and labels; None if none of them exists.

    Raises:
      DataError: if `folder` is not a folder, or only some of the files exist.
    """
    if not is_folder(folder):
        raise DataError(
            f"{folder} is not a folder; the four IDX files of {name} belong there. Correct "
            "data_dir or $CONVJAX_DATA_DIR, or leave data_dir out to download them."
        )
    for place in (folder / name, folder):
        found = [_find(place, stem) for stem in _STEMS]
        missing = [f"{s}-ubyte[.gz]" for s, path in zip(_STEMS, found, strict=True) if path is None]
        if not missing:
            return [path for path in found if path is not None]
        if len(missing) < len(_STEMS):
            raise DataError(
                f"{place} must have all four IDX files of {name}, but lacks {', '.join(missing)}. "
                "Add them, or leave data_dir out to download them."
            )
    return None


def load_idx(name: str, files: list[Path]) -> Dataset:
    """Returns a data set from its four IDX files.

    Args:
      name: "mnist" or "fashion_mnist".
      files: as from `find_idx_files`.

    Returns:
      Images (N, H, W, 1), in file order; for the original files N is 60,000 and 10,000 and
      H = W = 28.

    Raises:
      DataError: for a file that `read_idx` rejects, image and label counts that differ, labels
        outside 0..9, and the files of the other data set.
    """
    train, test = (_split(images, labels) for images, labels in (files[:2], files[2:]))
    first_labels = tuple(train.labels[:10].tolist())
    for other, other_labels in _FIRST_LABELS.items():
        if other != name and first_labels == other_labels:
            raise DataError(
                f"{files[1]} must hold the labels of {name}, got those of {other}. Both sets use "
                f"the same file names: keep each in a subfolder with its name, {name}/ and "
                f"{other}/."
            )
    return Dataset(name=name, train=train, test=test, class_names=CLASS_NAMES[name])


def read_idx(path: str | os.PathLike[str], num_axes: int) -> UInt8[np.ndarray, "..."]:
    """Returns the entries of one IDX file of unsigned bytes.

    Memory is bounded by the length of the file, and for a compressed one by 1 GiB: its header is
    trusted only as far as data follow.

    Args:
      path: the file; compressed if its name ends in .gz.
      num_axes: 3 for images (N, H, W), 1 for labels (N,).

    Raises:
      DataError: for a missing, unreadable, truncated or damaged file, one that is named .gz and is
        not gzip, another magic number or number of axes, a length that differs from what the
        header declares, and a compressed file that unfolds to more than 1 GiB.
    """
    path = Path(path)
    if num_axes not in _MAGIC:
        raise DataError(f"num_axes must be 3 for images or 1 for labels, got {num_axes!r}.")
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
      DataError: if the file is compressed, cannot be read, or has another header.
    """
    if _is_compressed(path):
        raise DataError(
            f"{path} is compressed, so single images cannot be read from it. Unpack it with "
            "gunzip, or load the data into memory."
        )
    try:
        with _open(path) as file:
            number, height, width = _read_header(file, path, 3)
            return file.tell(), (number, height, width)
    except OSError as error:
        raise _unreadable(path, error) from error


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


def _find(folder: Path, stem: str) -> Path | None:
    # Some archives write a dot in place of the second hyphen from the end.
    dotted = ".".join(stem.rsplit("-", 1))
    for name in (f"{stem}-ubyte", f"{stem}-ubyte.gz", f"{dotted}-ubyte", f"{dotted}-ubyte.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def _split(images_path: Path, labels_path: Path) -> Split:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path} must hold one label for each of the {len(images)} images of "
            f"{images_path}, got {len(labels)} labels. Check that both belong to the same split."
        )
    if labels.max() > 9:
        raise DataError(
            f"{labels_path} must hold labels from 0 to 9, got {labels.max()}. Check that this is a "
            "file of MNIST or Fashion-MNIST."
        )
    return Split(images=images[..., np.newaxis], labels=labels.astype(np.int32))


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
        raise DataError(
            f"{path} must start with {magic.hex(' ')}, as an IDX file of unsigned bytes with "
            f"{num_axes} ax{'es' if num_axes > 1 else 'is'} does, got "
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
) -> UInt8[np.ndarray, "..."]:
    """Reads header and entries; `longest` is the most that the file can hold, in bytes."""
    shape = _read_header(file, path, num_axes)
    declared = math.prod(shape)
    if _is_compressed(path) and longest >= declared > _MAX_UNFOLDED_BYTES:
        raise DataError(
            f"{path} must unfold to at most {_MAX_UNFOLDED_BYTES} bytes, got {_product(shape)} = "
            f"{declared} in its header. If you trust the file, unpack it with gunzip first."
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
        raise DataError(
            f"{path} must hold {_product(shape)} = {declared} bytes as its header declares, got "
            f"{'more' if len(entries) > declared else 'fewer'}. Download it again."
        )
    return np.frombuffer(entries, np.uint8).reshape(shape)


def _product(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
