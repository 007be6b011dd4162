"""The frame of a command: mistakes as one line, and the file of results."""

import json

import pytest
import typer
from rich.table import Table as RichTable

from convjax.terminal.command import measure_to_file, mistakes_reported, prepare_file


def failing(error, out, *, leaving=()):
    """A command that prepares the file of its results, creates other files, and raises an error."""
    with mistakes_reported("stopped"):
        prepare_file(out)
        assert out.parent.is_dir()
        for path in leaving:
            path.touch()
        raise error


@pytest.mark.parametrize("error", [ValueError("no"), OSError("full"), KeyboardInterrupt()])
def test_mistakes_reported_removes_created_folders(error, tmp_path):
    with pytest.raises(typer.Exit):
        failing(error, tmp_path / "a" / "b" / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_reported_passes_on_a_broken_pipe(tmp_path):
    """As after `| head`: Click handles it; it is not an error of the disk."""
    with pytest.raises(BrokenPipeError):
        failing(BrokenPipeError(), tmp_path / "a" / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_reported_keeps_folders_with_other_files(tmp_path):
    out = tmp_path / "a" / "b" / "out.json"
    with pytest.raises(typer.Exit):
        failing(ValueError("no"), out, leaving=[tmp_path / "a" / "mine"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine"]
    with pytest.raises(typer.Exit):
        failing(typer.Exit(1), out)  # a verdict: the command has its results
    assert list(out.parent.iterdir()) == []


def test_prepare_file_names_the_requested_file_in_its_error(tmp_path, capsys, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", f"{path}.partial")

    monkeypatch.setattr("convjax.terminal.command.atomic_write", full)
    with pytest.raises(typer.Exit):
        failing(AssertionError("not reached"), tmp_path / "x.json")
    text = capsys.readouterr().err
    assert text.startswith(f"error: cannot read or write {tmp_path}/x.json: No space left on dev")


def test_measure_to_file_writes_the_report_and_prints_its_tables(tmp_path, capsys):
    out = tmp_path / "new" / "x.json"
    table = RichTable("heading")
    report = measure_to_file(
        out, lambda shown: {"notes": ["[a] note"], "x": 1}, lambda report: [table, "| markdown |"]
    )
    assert json.loads(out.read_text()) == report == {"notes": ["[a] note"], "x": 1}
    shown = capsys.readouterr().out
    assert "heading" in shown
    assert shown.endswith(f"| markdown |\nnote: [a] note\nall figures: {out}\n")
    with pytest.raises(typer.Exit):
        measure_to_file(out, lambda shown: {}, lambda report: [])
