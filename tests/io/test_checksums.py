import json
import zlib

import pytest

from convjax.io.checksums import OF_ALL, OF_EACH, checksum, with_checksums, without_checksums
from convjax.io.json_files import JsonError, json_text

DATA = {"a": 1, "b": {"c": 0.5, "d": [1, None], "e": {}}, "Ä": "text"}


def test_checksum_is_that_of_the_text():
    assert checksum({"a": [1, 0.5], "b": float("nan")}) == zlib.crc32(b'{"a": [1, 0.5], "b": null}')
    assert checksum({"a": 1}) != checksum({"a": 1.0})


@pytest.mark.parametrize("key", [OF_ALL, OF_EACH])
def test_checksums_are_removed_again(key):
    written = json.loads(json_text(with_checksums(DATA, key)))
    assert list(written) == [*DATA, key]
    assert without_checksums(written, key, "file") == DATA
    assert without_checksums(DATA, key, "file") == DATA  # as earlier versions wrote it
    with pytest.raises(ValueError, match=f"must have no entry '{key}'.*got 3.*another name"):
        with_checksums({key: 3}, key)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": 2}, "a is now 2"),
        ({"b": {**DATA["b"], "c": 0.25}}, r"b\.c is now 0\.25"),
        ({"b": {**DATA["b"], "e": None}}, r"b\.e is now None"),
        ({"b": {"c": 0.5, "d": [1, None]}}, r"b\.e is missing"),
        ({"z": 1, "Ä": "other"}, "z is now 1; Ä is now 'other'"),
        ({"b": 1}, r"b is now 1; b\.c is missing; b\.d is missing and 1 more"),
    ],
)
def test_without_checksums_names_what_was_changed(changed, message):
    of_each, of_all = with_checksums(DATA, OF_EACH), with_checksums(DATA, OF_ALL)
    with pytest.raises(JsonError, match=f"^file was changed after it was written: {message}$"):
        without_checksums({**of_each, **changed}, OF_EACH, "file")
    with pytest.raises(JsonError, match="it differs from its checksum"):
        without_checksums({**of_all, **changed}, OF_ALL, "file")


@pytest.mark.parametrize("key", [OF_ALL, OF_EACH])
def test_without_checksums_notices_every_flipped_bit(key):
    """Of the text as it is in the file, the names of the checksums included."""
    text = json_text(with_checksums(DATA, key)).encode()
    for bit in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = json.loads(flipped)
        except ValueError:
            continue  # no JSON, or no UTF-8
        with pytest.raises(JsonError, match="was changed"):
            without_checksums(found, key, "file")
