"""Pages of incomplete runs, and folders without a run."""

import os
import sys
from pathlib import Path

import pytest

from convjax.report.build import comparison, report, write_report
from convjax.runs.config import RunError
from convjax.runs.predictions import PredictionsError
from convjax.stats.record_file import RecordError
from tests.helpers import make_record, without_histograms, without_layers
from tests.report.reported import left_run, rough, without_scripts


@pytest.fixture(scope="module")
def record():
    return rough(make_record(steps=30, layers=3, every=2))


@pytest.mark.parametrize(
    ("how", "sentences"),
    [
        ({"predictions": False}, ["There are no predictions"]),
        ({"metrics": False}, ["There are no metrics yet"]),
        ({"record": False}, ["There is no record of the steps yet"]),
        ({"record": "without histograms"}, ["The record has no histograms"]),
        ({"record": "without layers"}, ["no statistics of layers", "no gradients and updates"]),
        ({"steps": 60, "record": "begun"}, ["Not finished: 30 of 60 steps so far."]),
        ({"record": False, "metrics": False, "predictions": False}, ["no metrics", "no record"]),
    ],
)
def test_report_names_missing_files(tmp_path, record, how, sentences):
    records = {
        "without histograms": without_histograms(record),
        "without layers": without_layers(record),
        "begun": record,
    }
    how = how | {"record": records.get(how.get("record"), how.get("record", record))}
    page = without_scripts(report(left_run(tmp_path / "run", **how)))
    for sentence in sentences:
        assert sentence in page
    other = left_run(tmp_path / "other", record=record)
    assert "2 trainings compared" in comparison([tmp_path / "run", other])


def test_report_without_an_environment(tmp_path, record):
    path = left_run(tmp_path / "run", record=record)
    (path / "config.json").write_text('{"seed": 1}')
    assert "The versions and the device were not recorded." in report(path)


def test_write_report_is_atomic(tmp_path, record):
    path = left_run(tmp_path / "run", record=record)
    out = write_report(path)
    assert out == path / "report.html"
    assert out.read_text(encoding="utf-8") == report(path)
    before = out.read_bytes()
    (path / "record.npz").write_bytes(b"PK not a zip")
    with pytest.raises(RecordError, match=r"record\.npz"):
        write_report(path)
    assert out.read_bytes() == before
    assert not list(path.glob(".*partial"))


def test_report_rejects_damaged_files(tmp_path, record):
    path = left_run(tmp_path / "run", record=record)
    (path / "predictions.npz").write_bytes(b"PK not a zip")
    with pytest.raises(PredictionsError, match=r"predictions\.npz"):
        report(path)
    for name, text in (
        ("metrics.jsonl", "[1]"),
        ("metrics.jsonl", "{half"),
        ("metrics.jsonl", "[" * 100_000),
        ("config.json", "[1]"),
        ("config.json", "\xff"),
        ("config.json", '{"seed": NaN}'),
    ):
        (path / name).write_text(text, encoding="latin-1")
        with pytest.raises(
            RunError, match=f"run is damaged or cannot be read: .*{name}.* Take another copy"
        ):
            report(path)


def test_report_rejects_folders_without_a_run(tmp_path, record, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"nowhere does not exist\. Give the folder of a run"):
        report("nowhere")
    Path("file").write_text("")
    with pytest.raises(RunError, match="file is not a folder"):
        report("file")
    Path("empty").mkdir()
    with pytest.raises(RunError, match=r"empty holds no run: .* which holds its config\.json"):
        report("empty")
    for i in range(7):
        left_run(Path("runs/now/runs/plain") / f"seed-{i}", metrics=False, predictions=False)
    first = os.path.join("runs", "now", "runs", "plain", "seed-0")
    with pytest.raises(RunError, match=rf"folders below it do\..*: {first}, .*seed-4 …$"):
        report("runs")


def test_report_without_plotly(tmp_path, record, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r'pip install "convjax\[pages\]"'):
        report(left_run(tmp_path / "run", record=record))
