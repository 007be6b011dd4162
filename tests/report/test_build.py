"""Pages of incomplete runs, and folders without a run."""

import html
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convjax.diagnosis._diagnose import Diagnosis, Finding
from convjax.report.build import comparison, report, write_report
from convjax.report.table import format_value
from convjax.runs.config import RunError
from convjax.runs.predictions import PredictionsError
from convjax.stats.record_file import RecordError
from convjax.stats.recorder import Recorder
from tests.helpers import make_record, without_histograms, without_layers
from tests.report.reported import Numbers, left_run, rough, without_scripts


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


# --- the page of a record alone ------------------------------------------------------------------


def sections(page):
    """The titles in the table of contents."""
    return re.findall(r'<li><a href="#[a-z]+">(.*?)</a></li>', page)


def of_own_loop(record):
    """The record as a loop has it that gives neither rate nor momentum."""
    none = np.full_like(record.momentum, np.nan)
    return replace(record, learning_rate=none, momentum=none, eval_loss=record.eval_loss[:0])


def test_report_of_a_record_has_what_was_recorded(record):
    page = report(record)
    assert sections(page) == [
        "Results",
        "Loss",
        "Schedule",
        "The network",
        "Layer by layer",
        "Colour dimensions",
        "Gradients and updates",
        "Diagnosis",
    ]
    assert "<h1>Training of 30 steps</h1>" in page
    numbers = Numbers(page)
    np.testing.assert_array_equal(numbers.trace("loss", "training, each batch")[1], record.loss)
    np.testing.assert_array_equal(
        numbers.trace("layers-std", record.layers[1])[1], record.std[:, 1]
    )
    smoothed = format_value(float(record.smoothed_loss()[-1]))
    assert f'<td class="number">{smoothed}</td>' in page
    for file in ("metrics.jsonl", "predictions.npz", "record.npz", "Validation", "images"):
        assert file not in without_scripts(page)


@pytest.mark.parametrize(
    ("kept", "titles"),
    [
        (lambda record: record, ["The network", "Layer by layer", "Colour dimensions"]),
        (without_histograms, ["The network", "Layer by layer"]),
        (without_layers, []),
        (lambda record: record.between(2, 4), ["The network", "Layer by layer", "Colour dimen"]),
        (lambda record: record.merged(2), ["The network", "Layer by layer", "Colour dimensions"]),
    ],
)
def test_report_of_a_record_leaves_out_what_was_not_recorded(record, kept, titles):
    own = replace(kept(of_own_loop(record)), parameters=None)
    found = sections(report(own))
    assert found[:2] == ["Results", "Loss"]
    assert found[-1] == "Diagnosis"
    assert [title[:12] for title in found[2:-1]] == [title[:12] for title in titles]


def test_report_of_a_run_without_rates_says_so(tmp_path, record):
    path = left_run(tmp_path / "run", record=of_own_loop(record))
    assert "no learning rate and no momentum. Give Recorder.add" in without_scripts(report(path))
    rate = replace(of_own_loop(record), learning_rate=record.learning_rate)
    charts = Numbers(report(rate)).charts
    assert "learning-rate" in charts
    assert "momentum" not in charts


def test_report_draws_a_dozen_of_many_layers_or_the_chosen():
    record = rough(make_record(steps=30, layers=40))
    page = report(record)
    charts = Numbers(page).charts
    drawn = [trace["name"] for trace in charts["layers-mean"][0]["traces"]]
    assert {record.layers[0], record.layers[-1]} < set(drawn)
    assert 12 <= len(drawn) <= 15
    assert sum(name.startswith("dimension-") for name in charts) == len(drawn)
    text = html.unescape(without_scripts(page))
    assert f'{len(drawn)} of 40 layers are drawn; write_report(…, layers="*") draws all.' in text
    assert f"<summary>{len(drawn)} of 40 layers; all:</summary>" in text
    assert all(f'<th scope="row">{name}</th>' in text for name in record.layers)
    chosen = Numbers(report(record, layers=["blocks.3", -1])).charts["layers-mean"][0]["traces"]
    assert [trace["name"] for trace in chosen] == ["blocks.3.conv", "blocks.39.conv"]
    every = report(record, layers="*")
    assert len(Numbers(every).charts["layers-mean"][0]["traces"]) == 40
    assert "are drawn" not in without_scripts(every)


def test_report_shows_the_diagnosis_that_is_given(tmp_path, record):
    finding = Finding("dead layer", "blocks.0.conv", 3, 0.9, 0.5, "share", "less", "A.")
    given = Diagnosis((finding,), (), {})
    for run in (record, left_run(tmp_path / "run", record=record)):
        text = without_scripts(report(run, diagnosis=given))
        assert "The diagnosis below has 1 finding: dead layer." in text
        assert text.count("<h4>") == 1
    with pytest.raises(TypeError, match="diagnosis must be Diagnosis, got Finding"):
        report(record, diagnosis=finding)


def test_write_report_of_a_record(tmp_path, record):
    out = write_report(record, tmp_path / "mine.html")
    assert out == tmp_path / "mine.html"
    assert out.read_text(encoding="utf-8") == report(record)
    folder = left_run(tmp_path / "run", record=record)
    assert write_report(folder, tmp_path / "other.html").name == "other.html"
    assert not (folder / "report.html").exists()
    with pytest.raises(ValueError, match="path must be a file for the page of a record, got None"):
        write_report(record)
    with pytest.raises(ValueError, match="at least one step, got none"):
        report(record.between(3, 3))
    assert "Training of 1 step<" in report(record.between(3, 4))


def test_report_rejects_a_recorder():
    with pytest.raises(TypeError, match=r"run must be a folder or a Record.*recorder.record\(\)"):
        report(Recorder())
