import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.io.json_files import DEPTH, JsonError, read_object, read_objects
from tests.fuzz.mutations import on_files


def nested(depth):
    return '{"a":' * depth + "1" + "}" * depth


def test_read_object_by_hand(tmp_path):
    (tmp_path / "config.json").write_text('{"a": [1, 2.5, null, true], "é": {"b": "x"}}')
    assert read_object(tmp_path / "config.json") == {"a": [1, 2.5, None, True], "é": {"b": "x"}}
    # U+2028 ends a line for `str.splitlines`, but not in JSON.
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"note": "a\u2028b"}\n')
    assert read_objects(tmp_path / "metrics.jsonl") == [{"step": 1}, {"note": "a\u2028b"}]
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_objects(tmp_path / "metrics.jsonl") == []


json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@on_files(60)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_data, max_size=3))
def test_read_object_round_trip(tmp_path, value):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8", newline="")
    assert read_object(path) == value
    assert read_objects(path) == [value]


WRONG = {
    "[1, 2]": r"file\.json must hold an object \{…\}, got list",
    "null": "must hold an object .*, got null",
    "3": "got int",
    "{": r"file\.json is not JSON: Expecting .* in line 1, column 2",
    '{"a": 1} {"b": 2}': "not JSON: Extra data in line 1, column 10",
    '{"a": NaN}': "NaN is not JSON",
    '{"a": [-Infinity]}': "-Infinity is not JSON",
    f'{{"a": {2**63}}}': "a whole number of 19 digits does not fit 64 bits",
    f'{{"a": 1{"0" * 400}}}': "a whole number of 401 digits does not fit",
    f'{{"a": 1{"0" * 9000}}}': r"file\.json: ",  # followed by Python's message
    '{"a": "\\ud800"}': r"'\\ud800' contains half of a surrogate pair",
    nested(DEPTH): f"it is nested more than {DEPTH} deep",
    nested(100_000): f"is nested more than {DEPTH} deep",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_read_object_rejects(text, message, tmp_path):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(JsonError, match=message):
        read_object(tmp_path / "file.json")


def test_read_objects_names_the_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n\n{"step": 2}\n')
    with pytest.raises(JsonError, match=r"line 2 of metrics\.jsonl is not JSON"):
        read_objects(tmp_path / "metrics.jsonl")


def test_read_object_rejects_other_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "absent.json")
    with pytest.raises(JsonError, match="is not a regular file"):
        read_object(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")  # opening it would wait forever
    with pytest.raises(JsonError, match=r"pipe\.json is not a regular file"):
        read_object(tmp_path / "pipe.json")
    (tmp_path / "file.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(JsonError, match=r"file\.json is not UTF-8 text"):
        read_object(tmp_path / "file.json")
    with pytest.raises(JsonError, match=r"file\.json must have at most 5 bytes, got 10"):
        read_object(tmp_path / "file.json", limit=5)


def test_read_objects_refuse_many_values_before_they_are_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr("convjax.io.json_files.VALUES", 6)
    (tmp_path / "file.jsonl").write_text('{"a": 1, "b": 2}\n{"a": [1, 2]}\n')
    assert read_objects(tmp_path / "file.jsonl") == [{"a": 1, "b": 2}, {"a": [1, 2]}]
    (tmp_path / "file.jsonl").write_text("{}\n" * 6 + '[{"no JSON')
    with pytest.raises(JsonError, match=r"file\.jsonl must have at most 6 values, got up to 8"):
        read_objects(tmp_path / "file.jsonl")


def test_read_object_at_the_limit_of_depth(tmp_path):
    (tmp_path / "file.json").write_text(nested(DEPTH - 1))
    found = read_object(tmp_path / "file.json")
    for _ in range(DEPTH - 1):
        found = found["a"]
    assert found == 1
