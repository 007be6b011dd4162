"""Checksums within JSON objects, by which a reader notices what was changed after the writing."""

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from convjax.io.json_files import JsonError, flatten, nonfinite_to_null

# The entry of an object with the checksum of the others, or with the checksum of each of them.
OF_ALL, OF_EACH = "crc32", "checksums"
_LISTED = 3  # entries in an error message

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)  # json.dumps makes one per call


def checksum(value: Any) -> int:
    """Returns the CRC-32 of plain data as JSON, which is the same after writing and reading.

    Examples:
      >>> import json
      >>> from convjax.io.checksums import checksum
      >>> checksum({"a": 0.1}) == checksum(json.loads('{ "a": 1e-1 }'))
      True
    """
    return zlib.crc32(_ENCODER.encode(nonfinite_to_null(value)).encode())


def checksum_of_each(data: Mapping[str, Any]) -> dict[str, int]:
    """Returns the checksum of each entry, by names such as "optimizer.b2"."""
    return {name: checksum(value) for name, value in flatten(data).items()}


_COMPUTE: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    OF_ALL: checksum,
    OF_EACH: checksum_of_each,
}


def with_checksums(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns plain data with its checksums as a further entry.

    Args:
      data: the entries.
      key: `OF_ALL` or `OF_EACH`.

    Raises:
      ValueError: if the data have an entry of this name.
    """
    if key in data:
        raise ValueError(
            f"the data to write must have no entry {key!r}, which their checksum becomes; got "
            f"{data[key]!r:.80}. Give it another name."
        )
    return {**data, key: _COMPUTE[key](data)}


def without_checksums(found: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """Returns the data of which `with_checksums` was written, or data that have no checksums.

    Args:
      found: as read from a file.
      key: `OF_ALL` or `OF_EACH`.
      where: the name of the file, for messages.

    Raises:
      JsonError: if an entry differs from its checksum; the message names it.
    """
    compute = _COMPUTE[key]
    data = {name: value for name, value in found.items() if name != key}
    if key in found:
        now = compute(data)
        if found[key] != now:
            raise JsonError(
                f"{where} was changed after it was written: {_changed(found[key], now, data)}"
            )
        return data
    # Files of earlier versions have none. In others the name itself may be damaged.
    for name, value in found.items():
        kind = dict if key == OF_EACH else int
        if type(value) is kind and value == compute({n: v for n, v in data.items() if n != name}):
            raise JsonError(
                f"{where} was changed after it was written: the name of {key} is now {name!r:.80}"
            )
    return data


def _changed(before: Any, now: Any, data: Mapping[str, Any]) -> str:
    """Returns which entries differ from their checksums."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return "it differs from its checksum"
    values = flatten(data)
    names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    shown = [
        f"{name} is now {values[name]!r:.80}" if name in values else f"{name:.80} is missing"
        for name in names[:_LISTED]
    ]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return "; ".join(shown) + more
