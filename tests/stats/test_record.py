import dataclasses
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.stats.activations import ActivationStats
from convjax.stats.record import Record, RecordError, smooth
from convjax.stats.record_builder import concatenate, from_steps
from tests.helpers import make_record, without_histograms, without_layers

RECORD = make_record(steps=7, layers=3)
# As the other settings of Watch leave them; every=9 watches the first step alone.
KINDS = {
    "all": RECORD,
    "every 2": make_record(steps=7, layers=3, every=2),
    "every 3": make_record(steps=7, layers=3, every=3),
    "every 9": make_record(steps=7, layers=3, every=9),
    "no histograms": without_histograms(make_record(steps=7, layers=3, every=2)),
    "no layers": without_layers(RECORD),
}
kinds = pytest.mark.parametrize("record", KINDS.values(), ids=KINDS)


def assert_equal(found, expected):
    assert found.layers == expected.layers
    assert_same_fields(found, expected)
    if expected.parameters is None:
        assert found.parameters is None
    else:
        assert_same_fields(found.parameters, expected.parameters)


def assert_same_fields(found, expected):
    for field in dataclasses.fields(expected):
        if field.name != "parameters":
            actual, wanted = getattr(found, field.name), getattr(expected, field.name)
            np.testing.assert_array_equal(actual, wanted, err_msg=field.name, strict=True)


@pytest.fixture
def path(tmp_path):
    """A record on disk."""
    path = tmp_path / "record.npz"
    RECORD.save(path)
    return path


# --- contents ----------------------------------------------------------------------------------


def test_from_steps_puts_the_layer_second():
    def stats(layer):
        columns = {name: np.arange(4.0) + 10 * layer for name in ActivationStats._fields}
        hist = np.arange(160, dtype=np.int32).reshape(4, 40) + layer
        active = np.ones((4, 2 + layer), bool)
        return ActivationStats(**(columns | {"hist": hist, "active": active}))

    loss, rate, momentum = np.arange(10.0), np.arange(10.0) + 1, np.arange(10.0) + 2
    watched = np.arange(0, 10, 3)
    record = from_steps(["a", "b"], [6, 8], loss, rate, momentum, watched, [stats(0), stats(1)])
    assert record.layers == ("a", "b")
    assert record.sizes.tolist() == [6, 8]
    assert record.steps == 10
    assert record.mean.tolist() == [[0, 10], [1, 11], [2, 12], [3, 13]]
    assert record.hist.shape == (4, 2, 40)
    assert record.hist[1, 1, 0] == 41
    assert (record.channels.tolist(), record.active.tolist()) == ([2, 3], [[0b11111000]] * 4)
    assert (record.loss[1], record.learning_rate[1], record.momentum[1]) == (1, 2, 3)
    assert record.watched.tolist() == [0, 3, 6, 9]


def test_from_steps_without_histograms_or_layers():
    row = np.arange(2.0)
    stats = ActivationStats(row, row, row, row, None, None, None)
    bare = from_steps(["a", "b"], [6, 8], row, row, row, [0, 1], [stats, stats])
    assert bare.mean.tolist() == [[0, 0], [1, 1]]
    assert (bare.hist.shape, bare.under.shape, bare.over.shape) == ((0, 2, 40), (0, 2), (0, 2))
    none = from_steps([], [], row, row, row, [], [])
    assert (none.steps, none.layers, none.sizes.shape) == (2, (), (0,))
    assert (none.watched.shape, none.std.shape, none.hist.shape) == ((0,), (0, 0), (0, 0, 40))


@pytest.mark.parametrize("name", ["no histograms", "no layers"])
def test_without_histograms_there_is_no_count_of_nan(name):
    message = r"must hold histograms, got none\. Train with Watch\(histogram=True\)"
    with pytest.raises(ValueError, match=message):
        KINDS[name].nan()
    with pytest.raises(ValueError, match=message):
        KINDS[name].check_histograms()
    KINDS["every 9"].check_histograms()


def test_edges_and_values_that_were_nan():
    assert RECORD.hist_edges.shape == (41,)
    assert RECORD.hist_edges[[0, 1, -1]].tolist() == [0, 0.25, 10]
    assert not RECORD.nan().any()
    hist = RECORD.hist.copy()
    hist[2, 1, 0] -= 5
    assert dataclasses.replace(RECORD, hist=hist).nan().tolist() == [
        [5 if (step, layer) == (2, 1) else 0 for layer in range(3)] for step in range(7)
    ]


def test_a_layer_by_name_or_index():
    assert RECORD.layer("blocks.1.conv") == RECORD.layer(1) == RECORD.layer(-2) == 1
    message = r"no layer 'conv'; the record has blocks\.0\.conv, blocks\.1\.conv, blocks\.2\.conv"
    with pytest.raises(KeyError, match=message):
        RECORD.layer("conv")
    for index in (3, -4):
        with pytest.raises(IndexError, match=rf"layer {index} is out of range; .* 3 layers: bl"):
            RECORD.layer(index)


@kinds
@given(cuts=st.lists(st.integers(0, 7), max_size=3).map(sorted))
def test_rows_and_concatenate_undo_each_other(record, cuts):
    bounds = [0, *cuts, 7]
    pieces = [record.between(first, last) for first, last in pairwise(bounds)]
    assert sum(piece.steps for piece in pieces) == 7
    assert_equal(concatenate(pieces), record)


def test_rows_by_hand():
    rows = RECORD.between(2, 4)
    assert rows.steps == 2
    assert rows.learning_rate.tolist() == RECORD.learning_rate[2:4].tolist()
    assert rows.hist.shape == (2, 3, 40)
    assert rows.layers == RECORD.layers
    assert rows.sizes.tolist() == RECORD.sizes.tolist()
    assert rows.watched.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("start", "stop", "steps", "watched"),
    [
        (0, 7, 7, [0, 3, 6]),
        (0, 3, 3, [0]),
        (1, 3, 2, []),
        (1, 7, 6, [2, 5]),
        (3, 100, 4, [0, 3]),
        (-5, -1, 4, [1]),
        (5, 2, 0, []),
    ],
)
def test_rows_count_the_watched_steps_from_their_start(start, stop, steps, watched):
    # Steps 0, 3 and 6 are watched; the means of layer 0 are the steps' numbers.
    rows = KINDS["every 3"].between(start, stop)
    assert (rows.steps, rows.watched.tolist()) == (steps, watched)
    first = slice(start, stop).indices(7)[0]
    assert rows.mean[:, 0].tolist() == [first + step for step in watched]
    assert rows.hist.shape == (len(watched), 3, 40)


def test_concatenate_shifts_the_watched_steps():
    # Two trainings of 4 and 7 steps, each watched from its own start.
    joined = concatenate([KINDS["every 3"].between(0, 4), KINDS["every 3"]])
    assert joined.steps == 11
    assert joined.watched.tolist() == [0, 3, 4, 7, 10]
    assert joined.mean[:, 0].tolist() == [0, 3, 0, 3, 6]
    assert joined.loss.tolist() == [*RECORD.loss[:4], *RECORD.loss]


def test_concatenate_rejects_nothing():
    with pytest.raises(ValueError, match="at least one record, got none"):
        concatenate([])


# --- smoothed loss -----------------------------------------------------------------------------


def test_smooth_by_hand():
    # Weight 1/2: s = 2, 1 + 2 = 3, 1.5 + 4 = 5.5, over 1/2, 3/4 and 7/8. Exact in binary but the
    # divisions.
    found = smooth(np.array([4.0, 4.0, 8.0]), 0.5)
    np.testing.assert_allclose(found, [4, 4, (0.5 * 3 + 4) / 0.875], rtol=1e-15)
    assert smooth(np.array([3.0, 1.0]), 0).tolist() == [3, 1]
    assert smooth(np.array([])).shape == (0,)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    st.floats(0, 0.999),
)
def test_smooth_is_the_weighted_mean_of_what_was_so_far(values, weight):
    found = smooth(np.array(values), weight)
    for i, value in enumerate(found):
        weights = weight ** np.arange(i, -1, -1.0)
        # float64; 1 − weight loses three digits at most.
        expected = np.average(values[: i + 1], weights=weights)
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-6 * 1e-3)


def test_smoothed_loss_is_fastais():
    np.testing.assert_array_equal(RECORD.smoothed_loss(), smooth(RECORD.loss, 0.98))
    assert RECORD.smoothed_loss()[0] == pytest.approx(RECORD.loss[0], rel=1e-12)


@pytest.mark.parametrize("weight", [1, -0.1, float("nan")])
def test_smooth_rejects(weight):
    with pytest.raises(ValueError, match="weight must be at least 0 and below 1, got"):
        smooth(np.zeros(3), weight)


# --- files -------------------------------------------------------------------------------------


@kinds
def test_round_trip(tmp_path, record):
    path = tmp_path / "record.npz"
    record.save(path)
    assert_equal(Record.load(path), record)
    assert_equal(Record.load(str(path)), record)


def test_round_trip_of_odd_names_and_numbers(tmp_path):
    odd = dataclasses.replace(
        RECORD,
        layers=("é", "a b", "x" * 300),
        loss=np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-300, 1e300]),
    )
    odd.save(tmp_path / "odd.npz")
    assert_equal(Record.load(tmp_path / "odd.npz"), odd)


def test_bytes_are_a_file(tmp_path):
    content = RECORD.to_bytes()
    (tmp_path / "record.npz").write_bytes(content)
    assert_equal(Record.load(tmp_path / "record.npz"), RECORD)
    assert_equal(Record.from_bytes(content), RECORD)
    with pytest.raises(RecordError, match="the record of a checkpoint is not a whole record"):
        Record.from_bytes(content[:-1], "the record of a checkpoint")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        Record.load(tmp_path / "none.npz")


def test_truncated_files(path):
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(RecordError, match=r"record\.npz is not a whole record of convjax: "):
            Record.load(path)


def test_a_changed_byte_is_noticed_or_does_not_matter(path):
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
def test_foreign_bytes(tmp_path_factory, content, start):
    path = tmp_path_factory.mktemp("foreign") / "record.npz"
    path.write_bytes(start + content)
    with pytest.raises(RecordError, match="is not a whole record of convjax"):
        Record.load(path)


def test_other_numpy_files(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(RecordError, match=r"array\.npy is not a whole record"):
        Record.load(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(RecordError, match=r"other\.npz is not a whole record .*format"):
        Record.load(tmp_path / "other.npz")


def test_another_format(path, tmp_path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(tmp_path / "later.npz", **(arrays | {"format": 9}))
    with pytest.raises(RecordError, match=r"later\.npz has record format 9, this version reads 4"):
        Record.load(tmp_path / "later.npz")
    del arrays["over"]
    np.savez(tmp_path / "lacking.npz", **arrays)
    with pytest.raises(RecordError, match=r"lacking\.npz is not a whole record .*over"):
        Record.load(tmp_path / "lacking.npz")


class Trap:
    """Leaves a mark where unpickling it runs code."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickles_are_refused_and_not_run(path, tmp_path):
    mark = tmp_path / "executed"
    trap = Trap(mark)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(tmp_path / "trap.npz", **(arrays | {"loss": np.array([trap], object)}))
    with pytest.raises(RecordError, match="is not a whole record"):
        Record.load(tmp_path / "trap.npz")
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(trap))
    with pytest.raises(RecordError, match="is not a whole record"):
        Record.load(tmp_path / "bare.npz")
    assert not mark.exists()
    pickle.loads(pickle.dumps(trap))  # the trap works
    assert mark.exists()


def test_saving_is_all_or_nothing(path, monkeypatch):
    def fails(file, **arrays):
        file.write(b"half of a record")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="no space left"):
        make_record(steps=2, layers=3).save(path)
    assert_equal(Record.load(path), RECORD)
    assert [file.name for file in path.parent.iterdir()] == ["record.npz"]


def test_saving_replaces_the_old_one(path):
    other = make_record(steps=2, layers=1)
    other.save(path)
    assert_equal(Record.load(path), other)
    assert [file.name for file in path.parent.iterdir()] == ["record.npz"]


def test_saving_where_there_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        RECORD.save(tmp_path / "none" / "record.npz")


@pytest.mark.parametrize("other", [KINDS["no histograms"], make_record(steps=2, layers=2)])
def test_records_of_different_trainings_are_not_joined(other):
    with pytest.raises(ValueError, match="records must be of one training: the same layers"):
        concatenate([RECORD, other])


def test_steps_without_statistics_stand_among_others():
    plain = without_layers(RECORD)
    joined = concatenate([plain, RECORD, plain])
    assert (joined.layers, joined.steps) == (RECORD.layers, 21)
    assert joined.watched.tolist() == list(range(7, 14))
    np.testing.assert_array_equal(joined.loss, np.tile(RECORD.loss, 3))
    np.testing.assert_array_equal(joined.hist, RECORD.hist)
