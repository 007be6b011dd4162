"""MNIST and Fashion-MNIST from their four IDX files, gzipped or not.

Format: two zero bytes, the type (8: unsigned byte), the number of axes, each axis as a big-endian
32-bit number, then the entries in C order.
"""

from __future__ import annotations

import errno
import gzip
import math
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.paths import is_folder

_UNSIGNED_BYTE = 8
MAGIC = {1: bytes((0, 0, _UNSIGNED_BYTE, 1)), 3: bytes((0, 0, _UNSIGNED_BYTE, 3))}
# Deflate cannot shrink data further, so a header that asks for more than this has to be wrong.
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
    """The four files of a data set, in `folder/name` or in `folder` itself.

    The subfolder comes first, so that the files of several data sets can live side by side.

    Args:
        folder: where to look.
        name: "mnist" or "fashion_mnist".

    Returns:
        Paths of training images and labels, test images and labels; None where none of them is
        there.

    Raises:
        DataError: where `folder` is not a folder, and where some of the files are missing.
    """
    if not is_folder(folder):
        raise DataError(
            f"{name}: {folder} is not a folder; the four IDX files are looked for there: correct "
            "data_dir or $CONVJAX_DATA_DIR, or leave it out to download them"
        )
    for place in (folder / name, folder):
        found = [_find(place, stem) for stem in _STEMS]
        missing = [f"{s}-ubyte[.gz]" for s, path in zip(_STEMS, found, strict=True) if path is None]
        if not missing:
            return [path for path in found if path is not None]
        if len(missing) < len(_STEMS):
            raise DataError(
                f"{name}: {place} lacks {', '.join(missing)}; all four IDX files are needed: add "
                "what is missing, or leave data_dir out to download them"
            )
    return None


def load_idx(name: str, files: list[Path]) -> Dataset:
    """Read a data set from its four IDX files.

    Args:
        name: "mnist" or "fashion_mnist".
        files: as from `find_idx_files`.

    Returns:
        images (N, H, W, 1), in file order; for the original files N is 60,000 and 10,000 and
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
                f"{name}: {files[1]} holds the labels of {other}; both sets use the same file "
                f"names: keep each in a subfolder with its name, {name}/ and {other}/"
            )
    return Dataset(name=name, train=train, test=test, class_names=CLASS_NAMES[name])


def read_idx(path: str | os.PathLike[str], num_axes: int) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes.

    Memory stays bounded by the length of the file, and of a compressed one by 1 GiB: its header is
    believed only as far as data follow.

    Args:
        path: the file; compressed where its name ends in .gz.
        num_axes: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        The entries, with as many axes as asked for.

    Raises:
        DataError: for a missing or unreadable file, one that is named .gz and is not gzip, a
            truncated or damaged one, another magic number, a length that differs from what
            the header announces, a compressed file that unfolds to more than 1 GiB, and another
            number of axes.
    """
    path = Path(path)
    if num_axes not in MAGIC:
        raise DataError(
            f"num_axes: got {num_axes!r}; it must be 3 for a file of images or 1 for one of labels"
        )
    compressed = path.suffix == ".gz"
    try:
        # Before it is opened, which would wait for a writer where it is a pipe.
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is a folder, a pipe or a device")
        with gzip.open(path) if compressed else path.open("rb") as file:
            longest = path.stat().st_size * (_MAX_DEFLATE_RATIO if compressed else 1)
            return _parse(file, path, MAGIC[num_axes], longest)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; an IDX file is needed: correct the path") from None
    except gzip.BadGzipFile as error:
        raise DataError(
            f"{path}: not a valid gzip file ({error}), though its name ends in .gz: download it "
            "again, or drop .gz from the name of an uncompressed file"
        ) from error
    except (EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: truncated or damaged gzip file ({error}): download it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); a readable IDX file is needed: "
            "check the path and its permissions"
        ) from error


def _find(folder: Path, stem: str) -> Path | None:
    # Some archives write a dot where the original names have the last hyphen but one.
    dotted = ".".join(stem.rsplit("-", 1))
    for name in (f"{stem}-ubyte", f"{stem}-ubyte.gz", f"{dotted}-ubyte", f"{dotted}-ubyte.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def _split(images_path: Path, labels_path: Path) -> Split:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels; the "
            "counts must be equal: check that both belong to the same split"
        )
    if labels.size and labels.max() > 9:
        raise DataError(
            f"{labels_path}: got label {labels.max()}; labels must lie in 0..9: check that this is "
            "a file of MNIST or Fashion-MNIST"
        )
    return Split(images=images[..., np.newaxis], labels=labels.astype(np.int32))


def _parse(
    file: IO[bytes] | gzip.GzipFile, path: Path, magic: bytes, longest: int
) -> NDArray[np.uint8]:
    """Read header and entries; `longest` is the most that the file can hold, in bytes."""
    num_axes = magic[3]
    header = file.read(4 * (1 + num_axes))
    if header[:4] != magic:
        hint = (
            "it is compressed: end its name in .gz"
            if header[:2] == b"\x1f\x8b"
            else f"check that it is the IDX file of {'images' if num_axes == 3 else 'labels'}"
        )
        raise DataError(
            f"{path}: starts with {header[:4].hex(' ') or 'nothing'}; the magic number of an IDX "
            f"file of unsigned bytes with {num_axes} ax{'es' if num_axes > 1 else 'is'} is "
            f"{magic.hex(' ')}: {hint}"
        )
    if len(header) < 4 * (1 + num_axes):
        raise DataError(f"{path}: ends within the IDX header: download it again")
    shape = struct.unpack(f">{num_axes}I", header[4:])
    announced = math.prod(shape)
    if announced == 0:
        raise DataError(
            f"{path}: the header announces {' × '.join(map(str, shape))} entries; each axis needs "
            "at least one: check that the source is not empty"
        )
    if path.suffix == ".gz" and longest >= announced > _MAX_UNFOLDED_BYTES:
        raise DataError(
            f"{path}: the header announces {' × '.join(map(str, shape))} = {announced} bytes; at "
            f"most {_MAX_UNFOLDED_BYTES} are unfolded from a compressed file: where you trust it, "
            "unpack it with gunzip first"
        )
    entries = bytearray()
    if announced <= longest:
        # One byte more than announced shows whether anything follows.
        while len(entries) <= announced:
            chunk = file.read(min(_CHUNK_BYTES, announced + 1 - len(entries)))
            if not chunk:
                break
            entries += chunk
    if len(entries) != announced:
        found = "more" if len(entries) > announced else "fewer"
        raise DataError(
            f"{path}: the header announces {' × '.join(map(str, shape))} = {announced} bytes, but "
            f"{found} follow; the numbers must match: download it again"
        )
    return np.frombuffer(entries, np.uint8).reshape(shape)
