"""The data sets that are published as four IDX files: MNIST, those made like it, and EMNIST.

References:
  Xiao, Rasul and Vollgraf, "Fashion-MNIST", https://arxiv.org/abs/1708.07747.
  Clanuwat et al., "Deep Learning for Classical Japanese Literature" (KMNIST),
  https://arxiv.org/abs/1812.01718.
  Yadav and Bottou, "Cold Case: The Lost MNIST Digits" (QMNIST), https://arxiv.org/abs/1905.10498.
  Cohen et al., "EMNIST: an extension of MNIST to handwritten letters",
  https://arxiv.org/abs/1702.05373.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.idx import check_same_content, read_idx
from convjax.data.paths import is_folder
from convjax.data.tfds import PREPARED


@dataclass(frozen=True)
class IdxSet:
    """How a data set is written in IDX files.

    Attributes:
      stems: of the names of the training images and labels, then of the test.
      places: folders in which other libraries and the published archives keep the files.
      label_axes: 1, or 2 where the class is the first of several numbers.
      first_label: the number of the first class.
      transposed: whether rows and columns of the images are exchanged.
    """

    stems: tuple[str, str, str, str]
    places: tuple[str, ...]
    label_axes: int = 1
    first_label: int = 0
    transposed: bool = False


_MNIST_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _emnist(name: str, first_label: int = 0) -> IdxSet:
    train, test = (f"emnist-{name}-{split}" for split in ("train", "test"))
    images, labels = "images-idx3-ubyte", "labels-idx1-ubyte"
    stems = f"{train}-{images}", f"{train}-{labels}", f"{test}-{images}", f"{test}-{labels}"
    return IdxSet(stems, ("emnist", "gzip", "EMNIST/raw"), 1, first_label, transposed=True)


_SETS = {
    "mnist": IdxSet(_MNIST_STEMS, ("MNIST/raw",)),
    "fashion_mnist": IdxSet(_MNIST_STEMS, ("FashionMNIST/raw",)),
    "kmnist": IdxSet(_MNIST_STEMS, ("KMNIST/raw",)),
    "qmnist": IdxSet(
        (
            "qmnist-train-images-idx3-ubyte",
            "qmnist-train-labels-idx2-int",
            "qmnist-test-images-idx3-ubyte",
            "qmnist-test-labels-idx2-int",
        ),
        ("QMNIST/raw",),
        label_axes=2,
    ),
    "emnist_letters": _emnist("letters", first_label=1),
    "emnist_digits": _emnist("digits"),
    "emnist_balanced": _emnist("balanced"),
    "emnist_bymerge": _emnist("bymerge"),
    "emnist_byclass": _emnist("byclass"),
    "emnist_mnist": _emnist("mnist"),
}
IDX_DATASETS = tuple(_SETS)

# Published MD5 sums of the files as they are downloaded; EMNIST has one for its whole archive only.
_MD5 = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "mnist",
    "d53e105ee54ea40749a09fcbcd1e9432": "mnist",
    "9fb629c4189551a2d022fa330f9573f3": "mnist",
    "ec29112dd5afa0611ce80d1b7f02629c": "mnist",
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "fashion_mnist",
    "25c81989df183df01b3e8a0aad5dffbe": "fashion_mnist",
    "bef4ecab320f06d8554ea6380940ec79": "fashion_mnist",
    "bb300cfdad3c16e7a12a480ee83cd310": "fashion_mnist",
    "bdb82020997e1d708af4cf47b453dcf7": "kmnist",
    "e144d726b3acfaa3e44228e80efcd344": "kmnist",
    "5c965bf0a639b31b8f53240b1b52f4d7": "kmnist",
    "7320c461ea6c1c855c0b718fb2a4b134": "kmnist",
    "ed72d4157d28c017586c42bc6afe6370": "qmnist",
    "0058f8dd561b90ffdd0f734c6a30e5e4": "qmnist",
    "1394631089c404de565df7b7aeaf9412": "qmnist",
    "5b5b05890a5e13444e108efe57b788aa": "qmnist",
}
# SHA-256 of MNIST's files without compression, in the order of the stems: packed again, a file has
# another MD5 sum.
_MNIST_SHA256 = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
# Three sets use the same file names. Of an unpacked file of the others these are known: the first
# training labels of Fashion-MNIST, and that all of its and of KMNIST's classes are equally many.
_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}
_WHOLE = {60_000, 10_000}


def find_idx_files(folder: Path, name: str) -> list[Path] | None:
    """Returns the four files of a data set, in `folder/name` or in `folder` itself.

    The subfolder comes first, so that the files of several data sets can lie side by side.

    Args:
      folder: where to search.
      name: of `IDX_DATASETS`.

    Returns:
      Paths of training images and labels, test images and labels; None if none of them exists.

    Raises:
      DataError: if `folder` is not a folder, or only some of the files exist.
    """
    download = ", or leave data_dir out to download them" if name in PREPARED else ""
    if not is_folder(folder):
        raise DataError(
            f"{folder} is not a folder; the four IDX files of {name} belong there. Correct "
            f"data_dir or $CONVJAX_DATA_DIR{download}."
        )
    stems = _SETS[name].stems
    for place in (folder / name, folder, *(folder / each for each in _SETS[name].places)):
        found = [_find(place, stem) for stem in stems]
        missing = [f"{s}[.gz]" for s, path in zip(stems, found, strict=True) if path is None]
        if not missing:
            return [path for path in found if path is not None]
        if len(missing) < len(stems):
            raise DataError(
                f"{place} must have all four IDX files of {name}, but lacks {', '.join(missing)}. "
                f"Add them{download}."
            )
    return None


def idx_file_names(name: str) -> str:
    """Returns the names of the four files of a data set, for messages."""
    return ", ".join(_SETS[name].stems)


def _find(folder: Path, stem: str) -> Path | None:
    # Some archives write a dot in place of the hyphen before "idx".
    for form in (stem, stem.replace("-idx", ".idx")):
        found = [path for end in ("", ".gz") if (path := folder / f"{form}{end}").is_file()]
        if len(found) == 2:
            check_same_content(*found)
        if found:
            return found[0]
    return None


def load_idx(name: str, files: list[Path]) -> Dataset:
    """Returns a data set from its four IDX files.

    Args:
      name: of `IDX_DATASETS`.
      files: as from `find_idx_files`.

    Returns:
      Images (N, H, W, 1), upright and in file order, and labels from 0.

    Raises:
      DataError: for a file that `read_idx` rejects, image and label counts that differ, labels
        outside the classes, and the files of another data set.
    """
    splits, given = [], []
    for images_path, labels_path in (files[:2], files[2:]):
        images, labels = read_idx(images_path, 3), idx_labels(name, labels_path)
        check_counts(images_path, len(images), labels_path, len(labels))
        given += [images, labels]
        upright = np.ascontiguousarray(images.swapaxes(1, 2)) if transposed(name) else images
        splits.append(Split(images=upright[..., np.newaxis], labels=labels))
    check_identity(name, files, given)
    return Dataset(name=name, train=splits[0], test=splits[1], class_names=CLASS_NAMES[name])


def check_counts(images_path: Path, images: int, labels_path: Path, labels: int) -> None:
    """Raises DataError if two files hold different numbers of images and labels."""
    if images != labels:
        raise DataError(
            f"{labels_path} must hold one label for each of the {images} images of {images_path}, "
            f"got {labels} labels. Check that both belong to the same split."
        )


def transposed(name: str) -> bool:
    """Returns whether the images in a data set's files have rows and columns exchanged."""
    return _SETS[name].transposed


def idx_labels(name: str, path: Path) -> Int32[np.ndarray, " N"]:
    """Returns the labels of a file, from 0.

    Raises:
      DataError: for a file that `read_idx` rejects, and labels outside the classes of the set.
    """
    found = _SETS[name]
    labels: Integer[np.ndarray, ...] = read_idx(path, found.label_axes)
    if found.label_axes == 2:
        labels = labels[:, 0]  # of QMNIST; the others say who wrote it, and where it comes from
    low, high = found.first_label, found.first_label + len(CLASS_NAMES[name]) - 1
    if labels.min() < low or labels.max() > high:
        wrong = labels.min() if labels.min() < low else labels.max()
        raise DataError(
            f"{path} must hold labels from {low} to {high}, got {wrong}. Check that this is a file "
            f"of {name}."
        )
    return (labels - np.int32(low)).astype(np.int32)


def check_identity(
    name: str, files: list[Path], arrays: Sequence[Integer[np.ndarray, "..."] | None]
) -> None:
    """Checks that files are those of the data set by whose name they are loaded.

    They are known by their published checksums, MNIST's also without compression; unpacked files of
    other sets by what is known of their labels. A set with fewer or more images than the published
    one is taken as it is, unless it has a published file of another set.

    Args:
      name: of the data set.
      files: as from `find_idx_files`.
      arrays: the content of each file, labels from 0; None for one that is not read.

    Raises:
      DataError: for files of another data set.
    """
    for path in files:
        owner = _MD5.get(_md5(path), name) if path.suffix == ".gz" else name
        if owner != name:
            raise _other_set(path, name, f"that of {owner}", owner)
    if _SETS[name].stems != _MNIST_STEMS:
        return
    for number, (path, array) in enumerate(zip(files, arrays, strict=True)):
        if array is None:
            continue
        is_mnist = _sha256(array.astype(np.uint8)) == _MNIST_SHA256[number]
        if is_mnist and name != "mnist":
            raise _other_set(path, name, "those of mnist", "mnist", array)
        if array.ndim == 1 and number == 1:
            for other, first in _FIRST_LABELS.items():
                if other != name and tuple(array[:10].tolist()) == first:
                    raise _other_set(path, name, f"those of {other}", other, array)
        if is_mnist or len(array) not in _WHOLE:
            continue
        if name == "mnist":
            raise _other_set(
                path, name, "others: their SHA-256 sum differs from the published", "", array
            )
        if array.ndim == 1 and len(set(np.bincount(array, minlength=10).tolist())) > 1:
            raise _other_set(
                path, name, "others: its classes are equally many, these are not", "", array
            )
        first_labels = number == 1 and len(array) == max(_WHOLE) and tuple(array[:10].tolist())
        if name == "fashion_mnist" and first_labels not in (False, _FIRST_LABELS[name]):
            raise _other_set(path, name, "others: the first ten differ", "", array)


def _other_set(
    path: Path, name: str, found: str, owner: str, array: np.ndarray | None = None
) -> DataError:
    kind = "file" if array is None else ("labels" if array.ndim == 1 else "images")
    other = f", {name}/ and {owner}/" if owner else f", such as {name}/"
    return DataError(
        f"{path} must hold the {kind} of {name}, got {found}. Several sets use the same file "
        f"names: keep each in a subfolder with its name{other}. To load files of your own, read "
        "them with convjax.data.idx.read_idx and make a Split."
    )


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:  # `read_idx` says why
        return ""


def _sha256(array: UInt8[np.ndarray, "..."]) -> str:
    """Returns the checksum of an IDX file with these entries."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    digest = hashlib.sha256(header)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
