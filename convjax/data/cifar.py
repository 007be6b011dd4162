"""CIFAR-10 and CIFAR-100 from their published archives, packed or unpacked: pickles or binary.

References:
  Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
  https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import itertools
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.plain_pickle import read_pickle

_SIDE = 32
_PIXELS = 3 * _SIDE**2
# Of a file in an archive; the training file of CIFAR-100 has 155 million bytes.
_MAX_BYTES = 1 << 29


@dataclass(frozen=True)
class _Form:
    """One published form of a data set.

    Attributes:
      folder: of the unpacked archive.
      archive: its name.
      train, test: the files of the splits.
      names: the file with the names of the classes.
      labels: the key of the labels in a pickle; in a binary file, the number of their bytes.
      names_key: of the names in a pickle.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: str | int
    names_key: str = ""


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_FORMS = {
    "cifar10": (
        _Form(
            "cifar-10-batches-py", "cifar-10-python.tar.gz", _BATCHES, "test_batch",
            "batches.meta", "labels", "label_names",
        ),
        _Form(
            "cifar-10-batches-bin", "cifar-10-binary.tar.gz",
            tuple(f"{name}.bin" for name in _BATCHES), "test_batch.bin", "batches.meta.txt", 1,
        ),
    ),
    "cifar100": (
        _Form(
            "cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test",
            "meta", "fine_labels", "fine_label_names",
        ),
        _Form(
            "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin",
            "fine_label_names.txt", 2,
        ),
    ),
}  # fmt: skip
CIFAR_DATASETS = tuple(_FORMS)


def load_cifar(name: str, place: Path) -> Dataset | None:
    """Returns CIFAR-10, or CIFAR-100 with its 100 fine classes.

    Args:
      name: "cifar10" or "cifar100".
      place: the published archive, a folder that contains it, the folder that it unpacks to, or
        one that contains that.

    Returns:
      Images (N, 32, 32, 3), the training batches one after the other; None if there is none of
      these files.

    Raises:
      DataError: if a file is missing, damaged, or of another data set.
    """
    for form in _FORMS[name]:
        for source in _sources(form, place):
            with source as files:
                return _load(name, form, place, files)
    return None


def _sources(form: _Form, place: Path) -> Iterator[Any]:
    """Yields what may be opened: folders first."""
    if place.is_file():
        if place.name in (form.archive, form.archive.removesuffix(".gz")):
            yield _archive(place)
        return
    for folder in (place, place / form.folder):
        # "train" and "test" may be the folders of pictures.
        if any((folder / file).is_file() for file in (*form.train, form.test)):
            yield _folder(folder)
    for file in (place / form.archive, place / form.archive.removesuffix(".gz")):
        if file.is_file():
            yield _archive(file)


_Files = Callable[[str], bytes]


@contextmanager
def _folder(folder: Path) -> Iterator[_Files]:
    def content(name: str) -> bytes:
        path = folder / name
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise DataError(f"{path} must have at most {_MAX_BYTES} bytes. Get it again.")
            return path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{folder} lacks {name}. Unpack the whole archive there.") from None
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror}. Check the path and its permissions."
            ) from error

    yield content


@contextmanager
def _archive(path: Path) -> Iterator[_Files]:
    try:
        with tarfile.open(path) as archive:
            # Nothing is written to the disk: names count without their folders.
            members = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}

            def content(name: str) -> bytes:
                if name not in members:
                    raise DataError(f"{path} lacks {name}. Download the archive again.")
                if members[name].size > _MAX_BYTES:
                    raise DataError(
                        f"{path} must have files of at most {_MAX_BYTES} bytes, got {name} of "
                        f"{members[name].size}. Download the archive again."
                    )
                file = archive.extractfile(members[name])
                assert file is not None  # it is a file
                return file.read()

            yield content
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path} is a truncated or damaged archive ({type(error).__name__}: {error}). Download "
            "it again."
        ) from error


def _load(name: str, form: _Form, place: Path, files: _Files) -> Dataset:
    names = _class_names(form, place, files(form.names))
    if names != CLASS_NAMES[name]:
        raise DataError(
            f"{place} must hold {name}, whose classes are {_short(CLASS_NAMES[name])}, got "
            f"{_short(names)} in {form.names}. Correct the name or the path."
        )

    def split(members: tuple[str, ...]) -> Split:
        parts = [_part(form, f"{member} in {place}", files(member)) for member in members]
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        if labels.max() >= len(names):
            raise DataError(
                f"{', '.join(members)} in {place} must hold labels below {len(names)}, got "
                f"{labels.max()}. Get it again."
            )
        # Stored as three planes, each in rows.
        images = images.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        return Split(np.ascontiguousarray(images), labels)

    return Dataset(name, split(form.train), split((form.test,)), names)


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + ("" if len(names) <= 10 else f" and {len(names) - 10} more")


def _class_names(form: _Form, place: Path, content: bytes) -> tuple[str, ...]:
    if isinstance(form.labels, int):
        return tuple(content.decode("latin1").split())
    found = read_pickle(content, f"{form.names} in {place}")
    names = found.get(form.names_key) if isinstance(found, Mapping) else None
    if not isinstance(names, list):
        raise DataError(
            f"{form.names} in {place} must have the list {form.names_key}, got "
            f"{type(found).__name__}. Get it again."
        )
    return tuple(n.decode("latin1") if isinstance(n, bytes) else str(n) for n in names)


def _part(
    form: _Form, source: str, content: bytes
) -> tuple[UInt8[np.ndarray, "N P"], Int32[np.ndarray, " N"]]:
    """Returns the images of a file, (N, 3072), and their labels."""
    if isinstance(form.labels, int):
        row = form.labels + _PIXELS
        if not content or len(content) % row:
            raise DataError(
                f"{source} must have a multiple of {row} bytes, {form.labels} for the label and "
                f"{_PIXELS} for the pixels of each image, got {len(content)}. Get it again, or "
                "correct the name of the data set."
            )
        rows = np.frombuffer(content, np.uint8).reshape(-1, row)
        # Of CIFAR-100 the coarse class comes first.
        return rows[:, form.labels :], rows[:, form.labels - 1].astype(np.int32)
    found = read_pickle(content, source)
    data, labels = (
        found.get(key) if isinstance(found, Mapping) else None for key in ("data", form.labels)
    )
    if not (
        isinstance(data, np.ndarray)
        and data.dtype == np.uint8
        and data.shape[1:] == (_PIXELS,)
        and isinstance(labels, list)
        and all(type(label) is int and label >= 0 for label in labels)
        and len(labels) == len(data) > 0
    ):
        keys = ", ".join(itertools.islice(map(str, found), 10)) if found else "nothing"
        raise DataError(
            f"{source} must have images, data (N, {_PIXELS}) uint8, and one label for each, "
            f"{form.labels}, got {keys}. Get it again, or correct the name of the data set."
        )
    return data, np.array(labels, np.int32)
