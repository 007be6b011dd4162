import dataclasses

import numpy as np
import pytest

from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record
from convjax.stats.record_file import RecordError
from convjax.stats.record_schema import FIELDS, PARAMETER_FIELDS
from tests.helpers import make_record, without_histograms, without_layers

RECORD = make_record(steps=7, layers=3, every=2)  # four watched steps


def test_schema_has_every_field():
    own = {field.name for field in dataclasses.fields(Record)}
    assert set(FIELDS) == own - {"parameters", "facts", "kinds"}
    assert set(PARAMETER_FIELDS) == {field.name for field in dataclasses.fields(ParameterRecord)}


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        make_record(steps=1, layers=1),
        make_record(steps=9, layers=2).merged(3),
        dataclasses.replace(RECORD, counted=RECORD.values + 1),
        RECORD.between(3, 5),
        RECORD.between(3, 3),  # of no step at all
        without_histograms(RECORD),
        without_layers(RECORD),
        dataclasses.replace(RECORD, parameters=None),
        dataclasses.replace(RECORD, loss=np.full(7, np.nan, np.float32)),
    ],
)
def test_record_load_accepts_records_of_trainings(record, tmp_path):
    record.save(tmp_path / "record.npz")
    np.testing.assert_array_equal(Record.load(tmp_path / "record.npz").first, record.first)


def of(name):
    return getattr(RECORD, name)


WRONG = {
    "loss": [
        (of("loss")[:-1], r"loss has the shape \(6,\), its axes are \(rows 7\)"),
        (of("loss")[:, None], r"loss has the shape \(7, 1\)"),
        (of("loss").astype(int), "loss is of the type int64"),
        (of("loss").astype(complex), "loss is of the type complex128"),
        (of("loss").astype(str), "loss is of the type <U"),
    ],
    "layers": [
        (np.array(["a", "b"]), r"sizes has the shape \(3,\), its axes are \(layers 2\)"),
        (np.array("abc"), r"layers has the shape \(\)"),
        (np.arange(3), "layers is of the type int64"),
    ],
    "sizes": [
        (of("sizes") * 0, r"sizes must be at least 1 .* \[0 0 0\]"),
        (of("sizes") + 2**60, "sizes must be at least 1 and, times 7 steps, below 2.62"),
        (of("sizes") // 2, "hist, under and over count more values than the layers have"),
    ],
    "parameters.sizes": [(np.array([0, 36]), r"sizes must be at least 1 .* \[ 0 36\]")],
    "steps": [
        (np.int64(-1), "first must begin with step 0 of -1"),
        (np.int64(6), "first must hold increasing steps below 6, got 0, 1, 2, 3, 4 …"),
        (np.float64(7), "steps is of the type float64"),
        (np.array([7]), r"steps has the shape \(1,\)"),
    ],
    "first": [
        (of("first") + 1, "first must begin with step 0 of 7, got 1, 2"),
        (of("first")[::-1], "first must begin with step 0"),
        (np.array([0, 2, 2, 3, 4, 5, 6]), "first must hold increasing steps below 7"),
    ],
    "watched": [
        (of("watched") - 1, "watched must hold increasing steps below 7, got -1, 1, 3, 5"),
        (of("watched") * 0, "watched must hold increasing steps"),
    ],
    "watched_count": [
        (of("watched_count") * 0, "watched_count must be at least 1"),
        (of("watched_count") + 2**62, "watched_count must be at least 1, with a sum of at most 7"),
    ],
    "mean": [(of("mean")[:, :2], r"mean has the shape \(4, 2\), .* \(watched rows 4, layers 3\)")],
    "hist": [
        (of("hist")[..., :39], r"hist has the shape \(4, 3, 39\), .* bins 40\)"),
        (of("hist")[:1], r"hist has the shape \(1, 3, 40\)"),
        (-of("hist"), "hist has a negative number, -500"),
    ],
    "hist_edges": [
        (np.arange(40.0), r"hist has the shape \(4, 3, 40\), its axes are .* bins 39\)"),
        (
            np.arange(41.0)[::-1],
            "hist_edges must be two or more finite, increasing numbers, got 40",
        ),
        (np.append(np.arange(40.0), np.inf), "hist_edges must be two or more finite"),
        (np.append(np.arange(40.0), 39.0), "hist_edges must be two or more finite, increasing"),
        (np.arange(41), "hist_edges is of the type int64"),
        (np.zeros((41, 1)), r"hist_edges has the shape \(41, 1\)"),
    ],
    "near_zero_threshold": [
        (np.float64(-0.1), "near_zero_threshold must be finite and at least 0, got -0.1"),
        (np.float64(np.nan), "near_zero_threshold must be finite"),
        (np.ones(2), r"near_zero_threshold has the shape \(2,\)"),
    ],
    "channels": [
        (of("channels") * 9, "active has 2 bytes a row for 81 channels"),
        (of("channels")[:0], "active has 2 bytes a row for 0 channels"),
        (of("channels")[:2], r"channels has the shape \(2,\)"),
        (np.array([-1, 5, 5]), "channels has a negative number, -1"),
    ],
    "active": [(of("active").astype(np.uint16), "active is of the type uint16")],
    "counted": [
        (np.full((4, 3), 999), "hist, under and over count more values than the layers have"),
        (np.full((4, 2), 1000), r"counted has the shape \(4, 2\), .* layers 3\)"),
        (np.full((3, 3), 1000), r"counted has the shape \(3, 3\)"),
        (np.zeros((4, 0), int), "counted must be at least 1 for each layer, got none"),
        (np.full((4, 3), 1000) * [[1], [1], [1], [0]], "counted must be at least 1"),
        (np.full((4, 3), 2**60), "counted has more values than 64 bits hold"),
        (np.full((4, 3), 1e3), "counted is of the type float64"),
    ],
    "parameters.watched_count": [
        (np.zeros(4, int), "watched_count must be at least 1, got 0, 0"),
        (np.full(4, 2**60), r"sizes must be at least 1 and, times \d+ steps, below 2.62"),
    ],
    "eval_loss": [(of("eval_loss")[:-1], r"eval_loss has the shape \(3,\)")],
    "format": [
        (np.array([4, 4]), r"has record format \[4 4\], this version reads 4 to 6"),
        (np.array("four"), "has record format four"),
    ],
    "parameters.names": [
        (np.array(["a"]), r"sizes has the shape \(2,\), its axes are \(parameters 1\)")
    ],
    "parameters.watched": [(of("watched") + 9, "watched must hold increasing steps below 7")],
    "parameters.grad_norm": [
        (np.ones((3, 2)), r"grad_norm has the shape \(3, 2\), .* \(watched rows 4, parameters 2\)")
    ],
    "parameters.grad_hist": [
        (np.ones((4, 2, 40), int), r"grad_hist .* bins of magnitudes 42\)"),
        (np.full((4, 2, 42), 2**60), "grad_hist counts more values than 64 bits hold"),
        (-np.ones((4, 2, 42), int), "grad_hist has a negative number, -1"),
    ],
}


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [(name, array, message) for name, cases in WRONG.items() for array, message in cases],
)
def test_record_load_rejects_arrays_that_do_not_fit(name, array, message, tmp_path):
    RECORD.save(tmp_path / "record.npz")
    with np.load(tmp_path / "record.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "record.npz", **{**arrays, name: array})
    with pytest.raises(RecordError, match=rf"record\.npz .*{message}"):
        Record.load(tmp_path / "record.npz")


@pytest.mark.parametrize("name", ["loss", "parameters.names", "parameters.watched"])
def test_record_load_rejects_missing_arrays(name, tmp_path):
    RECORD.save(tmp_path / "record.npz")
    with np.load(tmp_path / "record.npz") as file:
        arrays = dict(file)
    del arrays[name]
    np.savez(tmp_path / "record.npz", **arrays)
    with pytest.raises(RecordError, match=f"{name.rpartition('.')[2]} is missing.* train again"):
        Record.load(tmp_path / "record.npz")
