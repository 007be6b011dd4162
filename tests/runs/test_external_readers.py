"""The files of a run read by other libraries: record.npz by NumPy, metrics.jsonl by pandas."""

from dataclasses import fields, replace

import numpy as np
import pandas
import pytest

from convjax.runs.folder import RunFolder
from convjax.runs.run import load_run
from convjax.stats.record import Record
from tests.helpers import make_record

# Numbers of every size, which must be read to the last digit.
RNG = np.random.default_rng(0)
LOSSES = (RNG.normal(size=500) * 10.0 ** RNG.integers(-300, 300, 500)).tolist()
# The smallest normal number: pandas cannot read smaller ones, which no float32 loss has.
EXTREMES = [0.1, -0.0, 2.2250738585072014e-308, 1.7976931348623157e308, 2.5]


@pytest.fixture
def run(tmp_path):
    """The folder of a run some of whose losses were not finite."""
    folder = RunFolder(tmp_path / "run", {})
    rows = [
        *(
            {"epoch": epoch, "step": 3 * (epoch + 1), "valid_loss": loss, "accuracy": 0.5}
            for epoch, loss in enumerate([*LOSSES, *EXTREMES, np.nan, np.inf, -np.inf])
        ),
        {"epoch": 508, "step": 1527, "valid_loss": 1.0, "train_accuracy": 0.75},
    ]
    folder.write_metrics(rows)
    record = make_record(steps=7, layers=3, every=2)
    loss, mean = record.loss.copy(), record.mean.copy()
    loss[:3], mean[1] = (np.nan, np.inf, -np.inf), np.nan
    replace(record, loss=loss, mean=mean).save(folder.path / "record.npz")
    return folder.path


def test_record_file_is_read_by_numpy(run):
    record = load_run(run).record
    np.testing.assert_array_equal(np.load(run / "record.npz")["loss"], record.loss, strict=True)
    with np.load(run / "record.npz") as file:  # NumPy's default forbids pickle
        found = dict(file)
    for of, prefix in ((record, ""), (record.parameters, "parameters.")):
        for field in fields(of):
            # Every batch has one size here, so that the file has no numbers of values by step.
            if field.name not in (
                *("layers", "names", "steps", "parameters", "counted"),
                *("facts", "kinds"),  # tests/stats/test_record_facts.py
            ):
                expected = getattr(of, field.name)
                np.testing.assert_array_equal(found[prefix + field.name], expected, strict=True)
    assert found["layers"].tolist() == list(record.layers) == [f"blocks.{i}.conv" for i in range(3)]
    assert found["parameters.names"].tolist() == list(record.parameters.names)
    assert found["steps"] == 7
    assert found["loss"][:3].tolist() == pytest.approx([np.nan, np.inf, -np.inf], nan_ok=True)


def test_record_file_contains_no_objects(run):
    with np.load(run / "record.npz") as file:
        assert {file[name].dtype.kind for name in file} <= set("biufU")


def test_record_file_keeps_names_of_any_script(tmp_path):
    names = ("Schicht 1", "слой", "層 #2", "")
    replace(make_record(steps=2, layers=4), layers=names).save(tmp_path / "record.npz")
    assert np.load(tmp_path / "record.npz")["layers"].tolist() == list(names)
    assert Record.load(tmp_path / "record.npz").layers == names


def test_metrics_file_is_read_by_pandas(run):
    metrics = load_run(run).metrics
    table = pandas.read_json(run / "metrics.jsonl", lines=True, precise_float=True)
    names = ["epoch", "step", "valid_loss", "accuracy", "train_accuracy"]
    assert set(table.columns) == {*names, "crc32"}
    assert len(table) == len(metrics) == 509
    for name in names:
        expected = [row.get(name, np.nan) for row in metrics]
        np.testing.assert_array_equal(table[name].to_numpy(np.float64), expected, err_msg=name)
    assert [str(table[name].dtype) for name in names] == ["int64", "int64", *["float64"] * 3]
    # The values that were written; JSON has no infinity.
    losses = [*LOSSES, *EXTREMES, np.nan, np.nan, np.nan, 1.0]
    np.testing.assert_array_equal(table["valid_loss"], losses)
