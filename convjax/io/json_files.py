"""JSON files of plain data, written atomically and read strictly.

Python's reader accepts values on which later code fails: NaN, which is not JSON, numbers of
thousands of digits, nesting deeper than functions can recurse, and halves of surrogate pairs.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from convjax.io.atomic import atomic_write

# Bytes of a file, and commas and brackets, which are as many as its values or more: enough for the
# metrics of a hundred thousand evaluations. More would take seconds to be refused.
LIMIT, VALUES = 32 << 20, 2_000_000
# Objects and lists within each other; a configuration has five.
DEPTH = 50
# Whole numbers that NumPy and pandas can represent.
_INTEGERS = range(-(1 << 63), 1 << 63)

# Halves of surrogate pairs, which JSON can escape, but no encoding can store.
_SURROGATES = {chr(code) for code in range(0xD800, 0xE000)}


class JsonError(ValueError):
    """A file is not JSON of plain data; the message names the file."""


def read_object(path: str | os.PathLike[str], *, limit: int = LIMIT) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
      path: of the file.
      limit: bytes that it may have.

    Raises:
      FileNotFoundError: if the file does not exist.
      JsonError: if it cannot be read, is larger than the limit, has more than `VALUES` values, or
        contains anything else.
    """
    return _object(_text(path, limit), Path(path).name)


def read_objects(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Returns the objects in a file of JSON lines.

    Raises:
      FileNotFoundError: if the file does not exist.
      JsonError: as `read_object`.
    """
    name = Path(path).name
    # splitlines would also split at characters that JSON allows within a string.
    lines = _text(path, LIMIT).removesuffix("\n").split("\n")
    if lines == [""]:
        return []
    return [_object(line, f"line {i} of {name}") for i, line in enumerate(lines, 1)]


def _text(path: str | os.PathLike[str], limit: int) -> str:
    name = Path(path).name
    try:
        # Checked before opening, which would wait for a writer if the path is a pipe.
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise JsonError(f"{name} is not a regular file")
        if found.st_size > limit:
            raise JsonError(f"{name} must have at most {limit} bytes, got {found.st_size}")
        text = Path(path).read_text("utf-8")
        values = sum(map(text.count, ",[{"))
        if values > VALUES:
            raise JsonError(f"{name} must have at most {VALUES} values, got up to {values}")
        return text
    except FileNotFoundError:
        raise
    except OSError as error:
        raise JsonError(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise JsonError(f"{name} is not UTF-8 text") from error


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
        _check(value)
    except json.JSONDecodeError as error:
        raise JsonError(
            f"{where} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise JsonError(f"{where} is nested more than {DEPTH} deep") from error
    except ValueError as error:  # of `_check`, and of Python for numbers with thousands of digits
        raise JsonError(f"{where}: {error}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__ if value is not None else "null"
        raise JsonError(f"{where} must hold an object {{…}}, got {kind}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any) -> None:
    """Raises ValueError for values that later code cannot process."""
    depth, level = 0, [value]
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and not _SURROGATES.isdisjoint(item):
                raise ValueError(f"{item!r:.80} contains half of a surrogate pair")
            elif type(item) is int and item not in _INTEGERS:
                raise ValueError(f"a whole number of {len(str(item))} digits does not fit 64 bits")
        depth, level = depth + 1, inner
        if depth > DEPTH:
            raise ValueError(f"it is nested more than {DEPTH} deep")


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns the differences between plain data of two runs, such as "seed 0, not 1"."""
    first, second = flatten(found), flatten(json.loads(json_text(wanted)))
    return [
        f"{name} {first.get(name)!r}, not {second.get(name)!r}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested plain data as one level, with names such as "optimizer.b2"."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, Mapping) and len(value) > 0
        found |= flatten(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes indented JSON atomically."""
    with atomic_write(path) as file:
        file.write((json_text(value, indent=2) + "\n").encode())


def json_text(value: Any, **options: Any) -> str:
    """Returns plain data as JSON, with null for NaN and infinity."""
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
    """Returns plain data with NaN for null, the reverse of `nonfinite_to_null`."""
    if value is None:
        return math.nan
    if isinstance(value, Mapping):
        return {key: null_to_nan(item) for key, item in value.items()}
    return [null_to_nan(item) for item in value] if isinstance(value, list) else value
