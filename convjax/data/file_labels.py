"""Labels of files: from a function of their names, or from a table; and what counts as a file."""

import csv
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convjax._checks import describe_value
from convjax.data.dataset import DataError
from convjax.data.paths import expanded
from convjax.data.picture_files import SUFFIXES

# A function of a file's name, the path of a CSV file, or a label for each name.
Labels = Callable[[str], str | int] | str | os.PathLike[str] | Mapping[str, str | int]

# What operating systems leave in folders; names with a dot first are hidden.
LEFT_BY_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")
_SHOWN = 5


def is_picture(path: Path) -> bool:
    """Returns whether a path is a file whose suffix is that of a picture."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def some_names(names: Iterable[object]) -> str:
    """Returns the first names of a list for a message."""
    shown = [repr(str(name))[1:-1] for name in names]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" * (len(shown) > _SHOWN))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Returns a key that sorts runs of digits as numbers; the name itself separates 1 from 01."""
    # Splitting on a group alternates text and digits, so that equal positions have equal types.
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


class LabelLookup:
    """The label of each file, from a function of its name or from a table.

    A table's names are those of files, or their paths below the folder, with or without suffix.
    """

    def __init__(self, root: Path, labels: Labels):
        self._function: Callable[[str], Any] | None = None
        self._table: Mapping[str, Any] = {}
        self._lacking: list[str] = []
        self._used: dict[str, Path] = {}  # the picture of each name
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

    def files(self, split: Path, ignored: list[Path]) -> Iterator[tuple[Path, str]]:
        """Yields all pictures below a folder that have a label, in natural order."""
        below: list[Path] = []
        seen: set[str] = set()
        # Linked folders count, as they do among class folders, but none twice.
        for folder, folders, names in os.walk(split, onerror=_raise, followlinks=True):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            below += [Path(folder, name) for name in names]
        for path in sorted(below, key=lambda path: natural_key(str(path.relative_to(split)))):
            if path.name[0] == "." or path.name.lower() in LEFT_BY_SYSTEMS:
                continue
            if not is_picture(path):
                if path.suffix.lower() not in (".csv", ".tsv"):
                    ignored.append(path)
                continue
            label = self._label(path)
            if label is None:
                self._lacking.append(str(path.relative_to(self._root)))
                continue
            if not isinstance(label, str | int | np.integer):
                raise DataError(
                    "labels must be text or whole numbers, got "
                    f"{describe_value(label)} for {path}. Convert them, and leave out what is "
                    "missing."
                )
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
                other = self._used.setdefault(name, path)
                if other != path:
                    raise DataError(
                        f"{self._source} must name each picture by its path below the folder, got "
                        f"{name!r}, which is {path} and {other}: the labels of one split would be "
                        "given to the other. Write paths such as "
                        f"{relative.as_posix()!r}, or pass the folder of one split."
                    )
                return self._table[name]
        return None

    def check(self, root: Path) -> None:
        """Checks that all pictures have labels, and warns of rows without a picture."""
        if self._lacking:
            raise DataError(
                f"{self._source} must give a label to every picture of {root}, got none for "
                f"{len(self._lacking)}: {some_names(self._lacking)}. Add them, or remove the "
                "pictures."
            )
        unused = [name for name in self._table if name not in self._used]
        if unused:
            warnings.warn(
                f"{len(unused)} names in {self._source} are of no picture in {root}: "
                f"{some_names(unused)}. Correct the names, or remove the rows.",
                stacklevel=5,
            )


def _raise(error: OSError) -> None:
    raise error


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
