"""Messages of `explore` for files and folders that it cannot show."""

import json
import shutil
import sys
from dataclasses import replace

import pytest

from convjax.chapter.setting import BATCH_NORM, LINEAR
from tests.cli.explore.command import assert_mistake, invoke, leave_run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spreadsheet", "absent.xlsx"], "must be the chapter's conv-example.xlsx"),
        (["--spreadsheet", __file__], "must be the chapter's conv-example.xlsx"),
        (["--run", "absent"], "--run must be the folder of a training"),
        (["--run", __file__], "--run must be the folder of a training"),
        (["--data-dir", "absent"], "--data-dir must be given with --run only"),
        (["--run", "a", "--spreadsheet", "b"], "--run and --spreadsheet exclude each other"),
    ],
)
def test_explore_reports_a_mistake_with_status_2(options, message, tmp_path):
    out = tmp_path / "explorer.html"
    assert_mistake(invoke(*options, "--out", out), message, out)


def test_explore_does_not_overwrite_a_file(tmp_path):
    (tmp_path / "mine.html").write_text("mine")
    result = invoke("--out", tmp_path / "mine.html")
    assert result.exit_code == 2
    assert "--out must be a new file" in result.stderr
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_explore_rejects_runs_that_it_cannot_show(lab, tmp_path):
    out = tmp_path / "out" / "explorer.html"
    leave_run(lab, LINEAR, tmp_path / "linear")
    message = "--run must be of a chain of convolutions"
    assert_mistake(invoke("--run", tmp_path / "linear", "--out", out), message, out)
    leave_run(lab, replace(BATCH_NORM, norm="layer"), tmp_path / "layer")
    message = "no norm but batch norm, got layer, group or instance norm"
    assert_mistake(invoke("--run", tmp_path / "layer", "--out", out), message, out)
    leave_run(lab, BATCH_NORM, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "compared")
    (tmp_path / "compared" / "model.npz").unlink()
    message = "--run must have the weights of its network, model.npz"
    assert_mistake(invoke("--run", tmp_path / "compared", "--out", out), message, out)
    (tmp_path / "run" / "model.npz").write_text("damaged")
    message = "is not a complete weights file"
    assert_mistake(invoke("--run", tmp_path / "run", "--out", out), message, out)
    config = tmp_path / "run" / "config.json"
    whole = json.loads(config.read_text())
    del whole["checksums"]  # of a file that is edited, they do not fit
    others = [{"setting": {"nonsense": 1}}, {}]
    wrong = {"data": 3, "seed": "0", "layout": "HWC", "classes": 10, "std": [0.0], "mean": ["a"]}
    others += [{**whole, name: value} for name, value in wrong.items()]
    others += [{**whole, "setting": {**whole["setting"], "network": "digit"}}]
    for other in others:
        config.write_text(json.dumps(other))
        message = "--run must be a training of `python -m experiments run`"
        assert_mistake(invoke("--run", tmp_path / "run", "--out", out), message, out)
    config.write_text("[]")
    assert_mistake(invoke("--run", tmp_path / "run", "--out", out), "a file of the run", out)


def test_explore_suggests_the_first_training_of_a_folder(tmp_path):
    first = tmp_path / "runs" / "digits" / "seed-0"
    first.mkdir(parents=True)
    (first / "config.json").write_text("{}")
    for folder in (tmp_path, first.parent, first.parent.parent):
        result = invoke("--run", folder, "--out", tmp_path / "out" / "x.html")
        assert_mistake(result, f"did you mean {first}?", tmp_path / "out" / "x.html")


def test_explore_reports_how_to_install_a_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "sheet.xlsx").write_bytes(b"")
    result = invoke("--spreadsheet", tmp_path / "sheet.xlsx", "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "openpyxl" in result.stderr
    assert 'pip install "convjax[all]"' in result.stderr
