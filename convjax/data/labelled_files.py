"""The files of an image folder with their labels: splits, classes, tables, random splits."""

import itertools
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from convjax._checks import describe_value
from convjax._warnings import warn_user
from convjax.data.batches import epoch_order
from convjax.data.dataset import DataError
from convjax.data.file_labels import (
    LEFT_BY_SYSTEMS,
    LabelLookup,
    Labels,
    is_picture,
    natural_key,
    some_names,
)
from convjax.data.paths import expanded
from convjax.data.picture_files import SUFFIXES

_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "valid", "validation", "val")

# A file and the name of its class.
_Labelled = tuple[Path, str]


class LabelledFiles(NamedTuple):
    """The picture files of a folder.

    Attributes:
      root: the absolute path of the folder.
      train, test: the files of each split and the names of their classes.
      class_names: of all files, in natural order.
    """

    root: Path
    train: Sequence[_Labelled]
    test: Sequence[_Labelled]
    class_names: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """The files of both splits, those for training first."""
        return [path for path, _ in (*self.train, *self.test)]

    def labels(self, split: Sequence[_Labelled]) -> Int32[np.ndarray, " N"]:
        """Returns the index of each file's class."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return np.array([index[name] for _, name in split], np.int32)


@contextmanager
def reading_errors(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turns errors of the file system into a `DataError` with the folder's name."""
    try:
        yield
    # Circular links are a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{os.fspath(folder)} cannot be read: {reason}. Check the path, its links and its "
            "permissions."
        ) from error


def list_files(
    folder: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    test_share: float | None = None,
    split_seed: int = 0,
) -> LabelledFiles:
    """Returns the picture files of a folder with their classes, as `convjax.data.load` says.

    Warns, with names, of files that are no pictures, and of table rows without a picture.

    Raises:
      DataError: if the folder, a split, a class or a label is missing, the classes of the splits
        differ, or an argument is of another kind.
      OSError, RuntimeError: if the folder cannot be read.
    """
    root = expanded(folder).resolve()
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder. Give the path of a folder with train/CLASS/*.png and "
            "test/CLASS/*.png."
        )
    _check_split_arguments(test_share, split_seed)
    ignored: list[Path] = []
    inside: dict[str, Path] = {}
    for path in _entries(root):
        other = inside.setdefault(path.name.lower(), path) if path.is_dir() else path
        if other != path and path.name.lower() in (*_TRAIN_NAMES, *_TEST_NAMES):
            raise DataError(
                f"{root} must have one folder {path.name.lower()}, got {other.name} and "
                f"{path.name}. Rename one."
            )
    train, test = (
        next((inside[name] for name in names if name in inside), None)
        for names in (_TRAIN_NAMES, _TEST_NAMES)
    )
    lookup = None if labels is None else LabelLookup(root, labels)
    by_class = _by_folder if lookup is None else lookup.files
    if test_share is None:
        if train is None or test is None:
            raise _no_split(root, _TRAIN_NAMES if train is None else _TEST_NAMES)
        found = [list(by_class(split, ignored)) for split in (train, test)]
        if lookup is None:
            _check_same_classes(root, *found)
    else:
        if test is not None:
            raise DataError(
                f"test_share must be None where the folder has a second split of its own, got "
                f"{test_share} with {test}. Leave test_share out, or move that folder away."
            )
        found = _random_split(root, list(by_class(train or root, ignored)), test_share, split_seed)
    if lookup is not None:
        lookup.check(root)
    _warn_of_ignored(root, ignored)
    names = sorted({name for _, name in itertools.chain(*found)}, key=natural_key)
    _warn_of_similar_names(root, names)
    return LabelledFiles(root, found[0], found[1], tuple(names))


def _check_split_arguments(test_share: Any, split_seed: Any) -> None:
    numeric = isinstance(test_share, int | float | np.number) and not isinstance(test_share, bool)
    if test_share is not None and not (numeric and 0 < test_share < 1):
        raise DataError(
            "test_share must be a number between 0 and 1, got "
            f"{describe_value(test_share)}. Pass 0.2 for a fifth of the images."
        )
    if not isinstance(split_seed, int | np.integer) or split_seed < 0:
        raise DataError(
            f"split_seed must be a whole number from 0, got {describe_value(split_seed)}."
        )


def _no_split(root: Path, names: tuple[str, ...]) -> DataError:
    fix = (
        "Rename or move the folders; if there is only one folder of images, pass test_share=0.2 "
        "to split it at random."
    )
    if any(root.glob("*ubyte*")):
        fix = "To load its IDX files, give the name of the data set, and this folder as data_dir."
    return DataError(
        f"{root} has no folder {' or '.join(names)}; images belong in {names[0]}/CLASS/*.png. {fix}"
    )


def _entries(folder: Path) -> list[Path]:
    """Returns what is in a folder, without hidden files."""
    return [
        path
        for path in folder.iterdir()
        if path.name[0] != "." and path.name.lower() not in LEFT_BY_SYSTEMS
    ]


def _by_folder(split: Path, ignored: list[Path]) -> Iterator[_Labelled]:
    """Yields the pictures of a split, classes and files in natural order.

    Raises:
      DataError: if there is no class, or one without pictures.
    """
    entries = sorted(_entries(split), key=lambda path: natural_key(path.name))
    classes = [path for path in entries if path.is_dir()]
    ignored += [path for path in entries if not path.is_dir() and is_picture(path)]
    if not classes:
        raise DataError(
            f"{split} has no class folder; images belong in {split.name}/CLASS/*.png. Move them "
            "into one folder per class, or pass labels= (a function of the file name, or a table)."
        )
    for folder in classes:
        if not folder.name.isprintable():
            raise DataError(
                f"class names must be printable characters, got {str(folder)!r}. Rename the "
                "folder in all splits."
            )
        files = sorted(_entries(folder), key=lambda path: natural_key(path.name))
        pictures = [path for path in files if is_picture(path)]
        ignored += [path for path in files if not is_picture(path)]
        if not pictures:
            raise DataError(
                f"{folder} must have at least one image ({', '.join(SUFFIXES)}), got none. "
                "Add images, or remove the folder from all splits."
            )
        yield from ((path, folder.name) for path in pictures)


def _check_same_classes(root: Path, train: Sequence[_Labelled], test: Sequence[_Labelled]) -> None:
    in_train, in_test = ({name for _, name in split} for split in (train, test))
    only = {"training": in_train - in_test, "test": in_test - in_train}
    differing = "; ".join(
        f"{', '.join(sorted(names, key=natural_key))} only in {split}"
        for split, names in only.items()
        if names
    )
    if differing:
        raise DataError(
            f"{root} must have the same classes in both splits, got {differing}. Add or remove "
            "class folders."
        )


def _random_split(
    root: Path, files: Sequence[_Labelled], share: float, seed: int
) -> list[list[_Labelled]]:
    """Returns files for training and for the test, each in the order given."""
    if len(files) < 2:
        raise DataError(
            f"test_share must leave an image in each split, got {len(files)} image in {root}. Add "
            "images."
        )
    number = min(max(round(share * len(files)), 1), len(files) - 1)
    drawn = set(epoch_order(len(files), len(files), seed=seed, epoch=0)[0, :number].tolist())
    return [
        [file for i, file in enumerate(files) if (i in drawn) == wanted] for wanted in (False, True)
    ]


def _warn_of_ignored(root: Path, ignored: Sequence[Path]) -> None:
    if ignored:
        warnings.warn(
            f"{len(ignored)} entries of {root} are not loaded, because they are no pictures in a "
            f"class folder: {some_names(path.relative_to(root) for path in ignored)}. Remove "
            f"them, or save them as one of {', '.join(SUFFIXES)}.",
            stacklevel=5,
        )


def _warn_of_similar_names(root: Path, names: Sequence[str]) -> None:
    alike: dict[str, list[str]] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        alike.setdefault(key, []).append(name)
    for key, same in alike.items():
        if len(same) > 1 and len(key) > 1:  # letters may be classes
            warn_user(
                f"{root} has classes whose names are nearly the same: "
                f"{', '.join(map(ascii, same))}. Give them one name if they are one class."
            )
