import errno
import shlex
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from convjax.cli import events
from convjax.runs.folder import RunFolder
from tests.helpers import make_record

app = typer.Typer(pretty_exceptions_enable=False)
app.command("events")(events.run_events)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def runs(tmp_path):
    """Two runs; the name of one folder has a space, which a shell splits."""
    paths = tmp_path / "all" / "seed-0", tmp_path / "all" / "seed 1"
    for path in paths:
        folder = RunFolder(path, {})
        folder.write_metrics([{"step": 3, "accuracy": 0.5}])
        folder.write_record(make_record(steps=3, layers=1))
    return paths


def logdir(result):
    """Returns the log folder in the printed command, as a shell parses it."""
    line = result.stdout.splitlines()[-1]
    assert line.startswith("next: tensorboard --logdir ")
    (path,) = shlex.split(line)[3:]
    return Path(path)


def test_events_of_one_run(runs):
    result = invoke(runs[1])
    assert result.exit_code == 0
    assert logdir(result) == runs[1] / "tensorboard"
    assert len(list(logdir(result).glob("events.out.tfevents.*"))) == 1
    assert not (runs[0] / "tensorboard").exists()


def test_events_of_several_runs_have_one_logdir(runs, monkeypatch):
    result = invoke(*runs)
    assert result.exit_code == 0
    assert logdir(result) == runs[0].parent
    assert all(f"event files: {run / 'tensorboard'}" in result.stdout for run in runs)
    monkeypatch.chdir(runs[0].parents[1])
    assert logdir(invoke("all/seed-0", "all/seed 1")) == Path("all")
    assert logdir(invoke("all/seed-0", "all/seed-0")) == Path("all/seed-0/tensorboard")


def test_events_reports_how_to_install_tensorboard(runs, monkeypatch):
    monkeypatch.setattr(events, "find_spec", lambda name: None)
    assert "next: pip install tensorboard, then: tensorboard --logdir" in invoke(runs[0]).stdout


def test_events_writes_nothing_after_a_mistake(runs, tmp_path, monkeypatch):
    def fails(*arguments, message):
        before = sorted(tmp_path.rglob("*"))
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1
        assert message in result.stderr
        assert sorted(tmp_path.rglob("*")) == before

    fails(runs[0], tmp_path / "nowhere", message="nowhere does not exist. Give the folder of a run")
    fails(runs[0], tmp_path, message="holds no run, but folders below it do. Give one or several")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
        fails(runs[0], message='pip install "convjax[tensorboard]"')
    with monkeypatch.context() as patch:

        def full(run):
            raise OSError(errno.ENOSPC, "No space left on device", str(run / "tensorboard"))

        patch.setattr("convjax.runs.tensorboard.write_events", full)
        fails(runs[0], message="left on device. If results go there, name a copy of the")
    (runs[0] / "tensorboard").mkdir()
    (runs[0] / "tensorboard" / "notes.txt").write_text("precious")
    fails(runs[0], message="holds 'notes.txt', which is not an event file")
