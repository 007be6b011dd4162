"""The command `report`: the files that it writes, and its error messages."""

import os

from convjax.report.build import comparison, report
from tests.report.reported import left_run


def assert_mistake(result, message):
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_report_of_one_run(invoke, tmp_path):
    path = left_run(tmp_path / "run")
    (path / "report.html").write_text("of before")
    result = invoke(path)
    assert result.exit_code == 0
    assert str(path / "report.html") in result.stdout
    assert (path / "report.html").read_text(encoding="utf-8") == report(path)
    assert invoke(path, "--out", tmp_path / "new" / "page.html").exit_code == 0
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == report(path)
    assert_mistake(invoke(path, "--out", tmp_path / "new" / "page.html"), "must be a new file")


def test_report_of_several_runs(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [left_run(tmp_path / name, seed=i) for i, name in enumerate("ab")]
    assert invoke(*paths).exit_code == 0
    assert (tmp_path / "comparison.html").read_text(encoding="utf-8") == comparison(paths)
    assert_mistake(invoke(*paths), "--out must be a new file, got comparison.html")
    assert_mistake(invoke(paths[0], paths[0], "--out", "c.html"), "paths must differ")
    assert not (tmp_path / "c.html").exists()


def test_report_rejects_folders_without_a_run(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left_run(tmp_path / "runs" / "now" / "runs" / "plain" / "seed-0")
    below = os.path.join("runs", "now", "runs", "plain", "seed-0")
    assert_mistake(invoke("runs"), "runs holds no run, but folders below it do. Give one")
    assert below in invoke("runs").stderr
    assert_mistake(invoke(below, "runs", "--out", "page.html"), below)
    assert_mistake(invoke("nowhere"), "nowhere does not exist")
    assert sorted(os.listdir()) == ["runs"]


def test_report_rejects_damaged_files(invoke, tmp_path):
    path = left_run(tmp_path / "run")
    (path / "record.npz").write_bytes(b"PK not a zip")
    assert_mistake(invoke(path), "record.npz")
    assert not (path / "report.html").exists()
