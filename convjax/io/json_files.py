"""JSON files of plain data: written atomically, read so that what comes out can be worked with.

Python's reader alone lets through what later code stumbles over: NaN, which is no JSON, numbers of
thousands of digits, nesting deeper than functions can follow, halves of characters.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from convjax.io.atomic import atomic_write

# Bytes of a file: the metrics of a hundred thousand evaluations.
LIMIT = 64 << 20
# Objects and lists within each other; a configuration has five.
DEPTH = 50
# Whole numbers that NumPy and pandas hold.
_INTEGERS = range(-(1 << 63), 1 << 63)

# Halves of characters, which JSON can escape and no file can hold.
_SURROGATES = {chr(code) for code in range(0xD800, 0xE000)}


class JsonError(ValueError):
    """A file holds no plain data; the message names it and says why."""


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
      FileNotFoundError: if there is no such file.
      PlainError: if it cannot be read, is larger than `LIMIT`, or holds anything else.
    """
    return _object(_text(path), Path(path).name)


def read_objects(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the objects that a file of JSON lines holds, one a line.

    Raises:
      FileNotFoundError, PlainError: as `read_object`.
    """
    name = Path(path).name
    # Not splitlines, which also ends lines at characters that JSON allows within a text.
    lines = _text(path).removesuffix("\n").split("\n")
    if lines == [""]:
        return []
    return [_object(line, f"line {i} of {name}") for i, line in enumerate(lines, 1)]


def _text(path: str | os.PathLike[str]) -> str:
    name = Path(path).name
    try:
        # Before it is opened, which would wait for a writer where it is a pipe.
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise JsonError(f"{name} is no file")
        if found.st_size > LIMIT:
            raise JsonError(f"{name} has {found.st_size} bytes, of which at most {LIMIT} are read")
        return Path(path).read_text("utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise JsonError(f"{name} cannot be read, {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise JsonError(f"{name} is no text in UTF-8") from error


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
        _check(value)
    except json.JSONDecodeError as error:
        raise JsonError(
            f"{where} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise JsonError(f"{where} is nested more than {DEPTH} deep") from error
    except ValueError as error:  # among them Python's own, of numbers with thousands of digits
        raise JsonError(f"{where}: {error}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__ if value is not None else "null"
        raise JsonError(f"{where} must hold an object {{…}}, got {kind}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _check(value: Any) -> None:
    """Raises ValueError for what later code stumbles over."""
    depth, level = 0, [value]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and not _SURROGATES.isdisjoint(item):
                raise ValueError(f"{item!r:.80} holds half of a character")
            elif type(item) is int and item not in _INTEGERS:
                raise ValueError(
                    f"a whole number of {len(str(item))} digits is longer than 64 bits"
                )
        depth, level = depth + 1, inner
        if depth > DEPTH:
            raise ValueError(f"it is nested more than {DEPTH} deep")


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns in words where plain data of two runs differ, such as "seed 0, not 1"."""
    first, second = flatten(found), flatten(json.loads(json_text(wanted)))
    return [
        f"{name} {first.get(name)!r}, not {second.get(name)!r}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested plain data as one level, such as "setting.lr_max"."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, Mapping)
        found |= flatten(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON that a person can read, atomically."""
    with atomic_write(path) as file:
        file.write((json_text(value, indent=2) + "\n").encode())


def json_text(value: Any, **options: Any) -> str:
    """Returns plain data as JSON, with null for what is not finite."""
    return json.dumps(nonfinite_to_null(value), ensure_ascii=False, allow_nan=False, **options)


def nonfinite_to_null(value: Any) -> Any:
    """Returns plain data with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: nonfinite_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nonfinite_to_null(item) for item in value]
    return value


def null_to_nan(value: Any) -> Any:
    """Returns what JSON held for numbers, with NaN for null: what `nonfinite_to_null` took away."""
    if value is None:
        return math.nan
    if isinstance(value, Mapping):
        return {key: null_to_nan(item) for key, item in value.items()}
    return [null_to_nan(item) for item in value] if isinstance(value, list) else value
