"""The files of an image folder with their labels: splits, classes, tables, random splits."""

import csv
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from convjax._checks import describe_value
from convjax.data.batches import epoch_order
from convjax.data.dataset import DataError
from convjax.data.paths import expanded
from convjax.data.pictures import SUFFIXES

# A function of a file's name, the path of a CSV file, or a label for each name.
Labels = Callable[[str], str | int] | str | os.PathLike[str] | Mapping[str, str | int]

_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "valid", "validation", "val")
# What operating systems leave in folders; names with a dot first are hidden.
_LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")
_SHOWN = 5

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
    inside = {p.name.lower(): p for p in _entries(root) if p.is_dir()}
    train, test = (
        next((inside[name] for name in names if name in inside), None)
        for names in (_TRAIN_NAMES, _TEST_NAMES)
    )
    lookup = None if labels is None else _Lookup(root, labels)
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
    names = sorted({name for _, name in itertools.chain(*found)}, key=_natural)
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
        if path.name[0] != "." and path.name.lower() not in _LEFT_BY_SYSTEMS
    ]


def _by_folder(split: Path, ignored: list[Path]) -> Iterator[_Labelled]:
    """Yields the pictures of a split, classes and files in natural order.

    Raises:
      DataError: if there is no class, or one without pictures.
    """
    entries = sorted(_entries(split), key=lambda path: _natural(path.name))
    classes = [path for path in entries if path.is_dir()]
    ignored += [path for path in entries if not path.is_dir() and _is_picture(path)]
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
        files = sorted(_entries(folder), key=lambda path: _natural(path.name))
        pictures = [path for path in files if _is_picture(path)]
        ignored += [path for path in files if not _is_picture(path)]
        if not pictures:
            raise DataError(
                f"{folder} must have at least one image ({', '.join(SUFFIXES)}), got none. "
                "Add images, or remove the folder from all splits."
            )
        yield from ((path, folder.name) for path in pictures)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _check_same_classes(root: Path, train: Sequence[_Labelled], test: Sequence[_Labelled]) -> None:
    in_train, in_test = ({name for _, name in split} for split in (train, test))
    only = {"training": in_train - in_test, "test": in_test - in_train}
    differing = "; ".join(
        f"{', '.join(sorted(names, key=_natural))} only in {split}"
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
            f"class folder: {_some(path.relative_to(root) for path in ignored)}. Remove them, or "
            f"save them as one of {', '.join(SUFFIXES)}.",
            stacklevel=5,
        )


def _some(names: Iterable[object]) -> str:
    """Returns the first names of a list for a message."""
    shown = [repr(str(name))[1:-1] for name in names]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" * (len(shown) > _SHOWN))


class _Lookup:
    """The label of each file, from a function of its name or from a table.

    A table's names are those of files, or their paths below the folder, with or without suffix.
    """

    def __init__(self, root: Path, labels: Labels):
        self._function: Callable[[str], Any] | None = None
        self._table: Mapping[str, Any] = {}
        self._lacking: list[str] = []
        self._used: set[str] = set()
        self._root = root
        if isinstance(labels, Mapping):
            self._table, self._source = labels, "labels"
        elif isinstance(labels, str | os.PathLike):
            self._table, self._source = _read_table(expanded(labels)), os.fspath(labels)
        elif callable(labels):
            self._function, self._source = labels, "labels"
        else:
            raise DataError(
                "labels must be a function of a file name, a mapping of names to labels, or the "
                f"path of a CSV file, got {describe_value(labels)}. Leave it out for one folder "
                "per class."
            )

    def files(self, split: Path, ignored: list[Path]) -> Iterator[_Labelled]:
        """Yields all pictures below a folder that have a label, in natural order."""
        below = [
            Path(folder, name)
            for folder, folders, names in os.walk(split)
            if not folders.sort() and not any(part[0] == "." for part in _parts(folder, split))
            for name in names
        ]
        for path in sorted(below, key=lambda path: _natural(str(path.relative_to(split)))):
            if path.name[0] == "." or path.name.lower() in _LEFT_BY_SYSTEMS:
                continue
            if not _is_picture(path):
                if path.suffix.lower() not in (".csv", ".tsv"):
                    ignored.append(path)
                continue
            label = self._label(path)
            if label is None:
                self._lacking.append(str(path.relative_to(self._root)))
                continue
            name = str(label)
            if not name.isprintable() or not name:
                raise DataError(
                    f"class names must be printable characters, got {name!r} for {path}. Correct "
                    "the label."
                )
            yield path, name

    def _label(self, path: Path) -> Any:
        if self._function is not None:
            try:
                return self._function(path.name)
            except Exception as error:
                raise DataError(
                    f"labels must return the label of each file name, got {type(error).__name__} "
                    f"({error}) for {path.name!r}. Correct the function."
                ) from error
        relative = path.relative_to(self._root)
        for name in (
            relative.as_posix(),
            path.name,
            relative.with_suffix("").as_posix(),
            path.stem,
        ):
            if name in self._table:
                self._used.add(name)
                return self._table[name]
        return None

    def check(self, root: Path) -> None:
        """Checks that all pictures have labels, and warns of rows without a picture."""
        if self._lacking:
            raise DataError(
                f"{self._source} must give a label to every picture of {root}, got none for "
                f"{len(self._lacking)}: {_some(self._lacking)}. Add them, or remove the pictures."
            )
        unused = [name for name in self._table if name not in self._used]
        if unused:
            warnings.warn(
                f"{len(unused)} names in {self._source} are of no picture in {root}: "
                f"{_some(unused)}. Correct the names, or remove the rows.",
                stacklevel=5,
            )


def _parts(folder: str, split: Path) -> tuple[str, ...]:
    return Path(folder).relative_to(split).parts


def _read_table(path: Path) -> dict[str, str]:
    """Returns the label of each name in a CSV file: names in its first column, labels in the next.

    The first row has the headings.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"labels must be a CSV file in UTF-8, got {path}, which cannot be read "
            f"({type(error).__name__}: {error}). Check the path."
        ) from error
    table: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) < 2:
            raise DataError(
                f"{path} must have a file name and a label in each row, got {row!r} in row "
                f"{number}. Separate them by a comma, after one row of headings."
            )
        name, label = row[0].strip(), row[1].strip()
        if table.get(name, label) != label:
            raise DataError(
                f"{path} must give one label to each name, got {table[name]!r} and {label!r} for "
                f"{name!r}. Remove one."
            )
        table[name] = label
    if not table:
        raise DataError(f"{path} must have a row for each picture after its headings, got none.")
    return table


def _natural(name: str) -> tuple[list[str | int], str]:
    """Returns a key that sorts runs of digits as numbers; the name itself separates 1 from 01."""
    # Splitting on a group alternates text and digits, so that equal positions have equal types.
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name
