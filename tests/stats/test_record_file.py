"""Files of records: what is saved is loaded, and whatever else a file may contain is rejected."""

import dataclasses
import io
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.stats.activations import activation_stats
from convjax.stats.bins import Bins, as_bins
from convjax.stats.record import Record
from convjax.stats.record_builder import from_steps
from convjax.stats.record_file import RecordError
from tests.helpers import make_record
from tests.stats.record_kinds import KINDS, RECORD, assert_equal

kinds = pytest.mark.parametrize("record", KINDS.values(), ids=KINDS)


@pytest.fixture
def path(tmp_path):
    """A record on disk."""
    path = tmp_path / "record.npz"
    RECORD.save(path)
    return path


@kinds
def test_record_load_returns_what_was_saved(tmp_path, record):
    path = tmp_path / "record.npz"
    record.save(path)
    assert_equal(Record.load(path), record)
    assert_equal(Record.load(str(path)), record)


def test_record_load_keeps_odd_names_and_numbers(tmp_path):
    odd = dataclasses.replace(
        RECORD,
        layers=("é", "a b", "x" * 300),
        loss=np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-300, 1e300]),
    )
    odd.save(tmp_path / "odd.npz")
    assert_equal(Record.load(tmp_path / "odd.npz"), odd)


def test_record_to_bytes_is_the_content_of_the_file(tmp_path):
    content = RECORD.to_bytes()
    (tmp_path / "record.npz").write_bytes(content)
    assert_equal(Record.load(tmp_path / "record.npz"), RECORD)
    assert_equal(Record.from_bytes(content), RECORD)
    with pytest.raises(RecordError, match="the record of a checkpoint is not a complete record"):
        Record.from_bytes(content[:-1], "the record of a checkpoint")


def test_record_load_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        Record.load(tmp_path / "none.npz")


def test_record_load_rejects_truncated_files(path):
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(RecordError, match=r"record\.npz is not a complete record of convjax: "):
            Record.load(path)


def test_record_load_notices_a_changed_byte_that_matters(path):
    content = path.read_bytes()
    noticed = 0
    for position in np.linspace(0, len(content) - 1, 120).astype(int):
        changed = bytearray(content)
        changed[position] ^= 0x55
        path.write_bytes(changed)
        try:
            found = Record.load(path)
        except RecordError:
            noticed += 1
        else:
            assert_equal(found, RECORD)  # a date or the like
    assert noticed > 60


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\3\4", b"\x93NUMPY\1\0", b"PK\5\6"]))
def test_record_load_rejects_foreign_bytes(tmp_path_factory, content, start):
    path = tmp_path_factory.mktemp("foreign") / "record.npz"
    path.write_bytes(start + content)
    with pytest.raises(RecordError, match="is not a complete record of convjax"):
        Record.load(path)


def test_record_load_rejects_other_numpy_files(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(RecordError, match=r"array\.npy is not a complete record"):
        Record.load(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(RecordError, match=r"other\.npz is not a complete record .*format"):
        Record.load(tmp_path / "other.npz")


def test_record_load_rejects_another_format(path, tmp_path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(tmp_path / "later.npz", **(arrays | {"format": 9}))
    with pytest.raises(
        RecordError, match=r"later\.npz has record format 9, this version reads 4 to 6"
    ):
        Record.load(tmp_path / "later.npz")
    del arrays["over"]
    np.savez(tmp_path / "lacking.npz", **arrays)
    with pytest.raises(RecordError, match=r"lacking\.npz is not a complete record .*over"):
        Record.load(tmp_path / "lacking.npz")


class Trap:
    """Leaves a mark where unpickling it runs code."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_record_load_does_not_run_pickles(path, tmp_path):
    mark = tmp_path / "executed"
    trap = Trap(mark)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(tmp_path / "trap.npz", **(arrays | {"loss": np.array([trap], object)}))
    with pytest.raises(RecordError, match="is not a complete record"):
        Record.load(tmp_path / "trap.npz")
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(trap))
    with pytest.raises(RecordError, match="is not a complete record"):
        Record.load(tmp_path / "bare.npz")
    assert not mark.exists()
    pickle.loads(pickle.dumps(trap))  # the trap works
    assert mark.exists()


def test_record_save_is_atomic(path, monkeypatch):
    def fails(file, **arrays):
        file.write(b"half of a record")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="no space left"):
        make_record(steps=2, layers=3).save(path)
    assert_equal(Record.load(path), RECORD)
    assert [file.name for file in path.parent.iterdir()] == ["record.npz"]


def test_record_save_replaces_a_file(path):
    other = make_record(steps=2, layers=1)
    other.save(path)
    assert_equal(Record.load(path), other)
    assert [file.name for file in path.parent.iterdir()] == ["record.npz"]


def test_record_save_needs_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        RECORD.save(tmp_path / "none" / "record.npz")


OTHER = dataclasses.replace(
    RECORD, hist_edges=as_bins("symmetric").edges, near_zero_threshold=0.125
)


def saved_arrays(record):
    with np.load(io.BytesIO(record.to_bytes())) as file:
        return dict(file)


def test_record_file_describes_its_bins():
    arrays = saved_arrays(RECORD)
    np.testing.assert_array_equal(arrays["hist_edges"], np.arange(41) / 4)
    assert (arrays["near_zero_threshold"], arrays["format"]) == (0.05, 4)


def test_record_load_of_a_file_without_edges_has_those_of_fastai(tmp_path):
    arrays = saved_arrays(RECORD)
    del arrays["hist_edges"], arrays["near_zero_threshold"]
    np.savez(tmp_path / "old.npz", **arrays)
    assert_equal(Record.load(tmp_path / "old.npz"), RECORD)


@pytest.mark.parametrize("bins", ["symmetric", Bins(-1.0, 2.0, 7)])
def test_record_load_keeps_other_edges(bins):
    stats = jax.tree.map(lambda x: np.asarray(x)[None], activation_stats(np.ones(6), bins=bins))
    row = np.zeros(1)
    record = from_steps(["a"], [6], row, row, row, [0], [stats], bins=bins)
    assert_equal(Record.from_bytes(record.to_bytes()), record)
    np.testing.assert_array_equal(record.hist_edges, as_bins(bins).edges)
    # Versions that would take the edges for fastai's refuse the file.
    assert saved_arrays(record)["format"] == 5


def test_record_load_keeps_another_threshold():
    assert_equal(Record.from_bytes(OTHER.to_bytes()), OTHER)
    assert OTHER.merged(2).near_zero_threshold == OTHER.between(1, 3).near_zero_threshold == 0.125
    np.testing.assert_array_equal(OTHER.merged(2).hist_edges, OTHER.hist_edges)


VARIED = dataclasses.replace(RECORD, counted=RECORD.values + np.arange(7)[:, None])


def test_record_load_keeps_batches_of_several_sizes():
    assert_equal(Record.from_bytes(VARIED.to_bytes()), VARIED)
    # Versions that would take all batches for equal refuse the file.
    assert saved_arrays(VARIED)["format"] == 6
    assert "counted" not in saved_arrays(RECORD)  # a file of equal batches is as it was
    both = dataclasses.replace(VARIED, hist_edges=OTHER.hist_edges)
    assert_equal(Record.from_bytes(both.to_bytes()), both)


def test_record_load_keeps_members():
    of = dataclasses.replace(RECORD.parameters, watched_count=np.full(7, 3))
    record = dataclasses.replace(RECORD, parameters=of)
    assert_equal(Record.from_bytes(record.to_bytes()), record)
    assert saved_arrays(record)["format"] == 6


def test_record_load_keeps_evaluations_at_some_steps():
    eval_loss = RECORD.eval_loss.copy()
    eval_loss[2:] = np.nan
    record = dataclasses.replace(RECORD, eval_loss=eval_loss)
    assert_equal(Record.from_bytes(record.to_bytes()), record)
    assert saved_arrays(record)["format"] == 4


@pytest.mark.parametrize("name", ["hist_edges", "near_zero_threshold"])
def test_record_load_rejects_a_file_of_other_bins_without_them(tmp_path, name):
    arrays = saved_arrays(OTHER)
    del arrays[name]
    np.savez(tmp_path / "lacking.npz", **arrays)
    with pytest.raises(RecordError, match=f"{name} is missing"):
        Record.load(tmp_path / "lacking.npz")
