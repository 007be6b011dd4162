"""Run folders whose files were mutated: bytes, JSON of another form, arrays of another run."""

import json
import math
import shutil
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.io.json_files import JsonError, nonfinite_to_null, read_object, read_objects
from convjax.runs.config import RunError
from convjax.runs.folder import RunFolder
from convjax.runs.run import load_run
from convjax.stats.record_file import RecordError
from tests.fuzz.mutations import mutated, on_files, plain_data
from tests.helpers import make_record

CONFIG = {"data": "mnist5k", "seed": 0, "setting": {"network": "digits", "lr_max": 0.06}}
ROWS = [{"epoch": epoch, "step": 3 * epoch, "valid_loss": 1 / epoch} for epoch in (1, 2)]
FILES = ("config.json", "metrics.jsonl", "record.npz")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    with RunFolder(path, CONFIG) as folder:
        folder.write_metrics(ROWS)
        folder.write_record(make_record(steps=6, layers=2))
    return path


@pytest.fixture
def damaged(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "damaged")


def check_run(path):
    """Reads a run: plain data that can be written again, or an error that names its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            run = load_run(path)
        except (RunError, RecordError) as error:
            assert str(path) in str(error)  # noqa: PT017  # the alternative is no error
            return
    assert isinstance(run.config, dict)
    assert all(isinstance(row, dict) for row in run.metrics)
    for value in (run.config, run.metrics):
        json.dumps(nonfinite_to_null(value), ensure_ascii=False, allow_nan=False).encode()


def test_load_run_reads_the_unchanged_run(damaged):
    run = load_run(damaged)
    assert (run.metrics, run.record.steps) == (ROWS, 6)


@on_files(150)
@given(data=st.data())
def test_load_run_of_changed_bytes(whole, damaged, data):
    for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
        (damaged / name).write_bytes(data.draw(mutated((whole / name).read_bytes())))
    check_run(damaged)
    for name in FILES:
        shutil.copy(whole / name, damaged / name)


@on_files(100)
@given(value=plain_data())
def test_load_run_of_other_json(damaged, value):
    text = json.dumps(value)
    (damaged / "config.json").write_text(text)
    (damaged / "metrics.jsonl").write_text(f"{text}\n{text}\n")
    check_run(damaged)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "link to itself"])
def test_load_run_without_a_file(damaged, name, kind):
    (damaged / name).unlink()
    if kind == "folder":
        (damaged / name).mkdir()
    elif kind == "empty":
        (damaged / name).touch()
    elif kind == "link to itself":
        (damaged / name).symlink_to(name)
    if (name, kind) == ("metrics.jsonl", "empty"):
        assert load_run(damaged).metrics == []
    else:
        with pytest.raises((RunError, RecordError), match=name.replace(".", r"\.")):
            load_run(damaged)


@on_files(150)
@given(value=plain_data() | st.dictionaries(st.text(max_size=3), plain_data(), max_size=3))
def test_read_object_reads_or_rejects_json(tmp_path, value):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(value))
    try:
        assert read_object(path) == value
        assert read_objects(path) == [value]
    except JsonError as error:
        assert "file.json" in str(error)  # noqa: PT017
        # Rejected only for another form, numbers beyond 64 bits, or halves of surrogate pairs.
        assert not isinstance(value, dict) or odd(value)
    else:
        assert isinstance(value, dict)
        assert not odd(value)


def odd(value):
    if isinstance(value, dict):
        return any(map(odd, [*value, *value.values()]))
    if isinstance(value, list):
        return any(map(odd, value))
    if isinstance(value, str):
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and not -(2**63) <= value < 2**63
