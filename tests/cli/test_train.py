"""`train`: its files, output and mistakes; resumed, repeated, split and streamed trainings."""

import errno
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.cli.app import app
from convjax.io.lock import FolderLock
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.predictions import Predictions
from convjax.runs.run import load_run
from tests.helpers import command_app, wait_for
from tests.train.fits import assert_same_records, untimed

# Three steps per epoch, and an evaluation after each.
SHORT = ("--quick", "--batch-size", 32, "--norm", "batch", "--schedule", "one-cycle", "--epochs", 3)
LONG = ("--quick", "--batch-size", 32, "--epochs", 150, "--lr-max", 0.001, "--save-seconds", 0.2)


def invoke(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The folder of a short run, and the result of the command."""
    out = tmp_path_factory.mktemp("train") / "run"
    result = invoke(*SHORT, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result


def assert_same_runs(actual, expected):
    """Compares parameters, record and metrics bit for bit."""
    with np.load(actual / "model.npz") as left, np.load(expected / "model.npz") as right:
        assert left.files == right.files
        for name in left.files:
            np.testing.assert_array_equal(left[name], right[name], name)
    left, right = load_run(actual), load_run(expected)
    assert untimed(left.metrics) == untimed(right.metrics)
    assert_same_records(left.record, right.record)


@pytest.mark.slow
class TestShortRun:
    def test_train_writes_its_folder(self, short):
        out, result = short
        assert {path.name for path in out.iterdir()} == {
            *("config.json", "metrics.jsonl", "record.npz", "model.npz", "predictions.npz"),
            *("checkpoints", "plots", "report.html"),
        }
        run = load_run(out)
        assert run.record.steps == 9
        assert [row["step"] for row in run.metrics] == [3, 6, 9]
        assert run.config["setting"]["norm"] == "batch"
        assert run.config["watch"] == "everything"
        predictions = Predictions.load(out / "predictions.npz")
        assert predictions.correct / len(predictions.labels) == run.metrics[-1]["accuracy"]
        assert "color-dim-blocks.3.conv.png" in {path.name for path in (out / "plots").iterdir()}
        assert f"the run: {out}" in result.stdout

    def test_train_prints_a_row_for_each_evaluation(self, short):
        out, result = short
        rows = [line for line in result.stdout.splitlines() if line.endswith("s")]
        for metrics in load_run(out).metrics:
            assert any(f"{metrics['valid_loss']:.4f}" in row for row in rows)

    def test_train_does_not_overwrite_a_run(self, short):
        out, _ = short
        result = invoke(*SHORT, "--out", out)
        assert result.exit_code == 2
        assert "--out must be a new or empty folder" in result.stderr

    def test_train_config_repeats_a_run(self, short, tmp_path):
        out, _ = short
        result = invoke("--config", out, "--out", tmp_path / "again", "--quiet")
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{tmp_path / 'again'}\n"
        assert_same_runs(tmp_path / "again", out)
        assert load_run(tmp_path / "again").config == load_run(out).config

    def test_train_config_is_changed_by_options(self, short, tmp_path):
        result = invoke("--config", short[0], "--epochs", 1, "--norm", "none", "--dry-run")
        found = json.loads(result.stdout)
        assert (found["setting"]["epochs"], found["setting"]["norm"]) == (1, None)
        assert (found["setting"]["schedule"], found["steps"]) == ("one-cycle", 3)

    def test_train_resume_of_a_finished_run_writes_the_missing_files(self, short, tmp_path):
        out = tmp_path / "run"
        shutil.copytree(short[0], out)
        for made in ("model.npz", "report.html"):  # as if killed at its end
            (out / made).unlink()
        result = invoke("--resume", "--out", out)
        assert result.exit_code == 0, result.output
        assert "the training was finished, after 9 steps" in result.stdout
        assert (out / "report.html").exists()
        assert_same_runs(out, short[0])

    def test_train_resume_rejects_changed_options(self, short, tmp_path):
        out = tmp_path / "run"
        shutil.copytree(short[0], out)
        result = invoke("--resume", "--out", out, "--lr-max", 0.1, "--seed", 1)
        assert result.exit_code == 2
        assert "holds a run with seed 0, not 1; setting.lr_max 0.06, not 0.1" in result.stderr
        dry = invoke("--resume", "--out", out, "--lr-max", 0.1, "--seed", 1, "--dry-run")
        assert (dry.exit_code, dry.stderr) == (2, result.stderr)
        assert invoke("--resume", "--out", out, "--dry-run").exit_code == 0
        assert_same_runs(out, short[0])

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("setting", "abc", "setting must be an object, got 'abc'"),
            ("setting", {"norm": "groups"}, "norm must be"),
            ("watch", "foo", "watch must be one of"),
        ],
    )
    def test_train_config_rejects_an_invalid_file(self, short, tmp_path, field, value, message):
        config = json.loads((short[0] / "config.json").read_text())
        del config["checksums"]  # as of one that is written by hand
        (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
        result = invoke("--config", tmp_path / "config.json", "--out", tmp_path / "run")
        assert result.exit_code == 2
        start = f"error: {tmp_path / 'config.json'} is not the configuration of a training: "
        assert result.stderr.startswith(start + message)
        assert result.stderr.endswith(". Take the config.json of a run's folder.\n")

    def test_train_resume_reports_a_damaged_checkpoint(self, short, tmp_path):
        out = tmp_path / "run"
        shutil.copytree(short[0], out)
        for path in (out / "checkpoints" / "9" / "progress").iterdir():
            path.write_text("{")
        before = (out / "metrics.jsonl").read_text()
        result = invoke("--resume", "--out", out)
        assert result.exit_code == 2
        assert "is damaged or cannot be read" in result.stderr
        assert f"Remove {out}/checkpoints/9, and the run" in result.stderr
        assert (out / "metrics.jsonl").read_text() == before
        shutil.rmtree(out / "checkpoints" / "9")
        assert invoke("--resume", "--out", out).exit_code == 0
        assert_same_runs(out, short[0])

    def test_train_resume_rejects_a_locked_folder(self, short, tmp_path):
        out = tmp_path / "run"
        shutil.copytree(short[0], out)
        with FolderLock(out):
            result = invoke("--resume", "--out", out)
        assert result.exit_code == 2
        assert "another process is writing into" in result.stderr

    def test_train_stream_is_bitwise_equal(self, short, tmp_path):
        result = invoke(*SHORT, "--stream", "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        assert_same_runs(tmp_path / "run", short[0])

    def test_train_devices_are_equal_up_to_rounding(self, short, tmp_path):
        result = invoke(*SHORT, "--devices", 2, "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        one, two = load_run(short[0]).record, load_run(tmp_path / "run").record
        # Nine steps: rounding has hardly grown.
        np.testing.assert_allclose(two.loss, one.loss, rtol=1e-4)
        assert load_run(tmp_path / "run").config["devices"] == 2


@pytest.mark.slow
def test_train_json_prints_an_object_per_event(tmp_path):
    result = invoke(*SHORT, "--json", "--out", tmp_path / "run")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    events = [line["event"] for line in lines]
    assert events == ["started", "scored", "scored", "scored", "finished"]
    assert lines[0]["config"]["seed"] == 0
    assert lines[2]["accuracy"] == load_run(tmp_path / "run").metrics[1]["accuracy"]
    assert lines[-1]["folder"] == str(tmp_path / "run")


def test_train_dry_run_prints_the_configuration_and_writes_nothing(tmp_path):
    result = invoke(*SHORT, "--dry-run", "--out", tmp_path / "run")
    found = json.loads(result.stdout)
    assert (found["steps"], found["setting"]["batch_size"], found["data"]) == (9, 32, "mnist5k")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_train_non_finite_stops_or_continues(tmp_path):
    options = ("--quick", "--lr-max", 1e30, "--epochs", 3, "--out", tmp_path / "run")
    result = invoke(*options)
    assert result.exit_code == 3
    assert "the first layer that is not finite there is blocks." in result.stderr
    assert f"The record up to there is in {tmp_path / 'run'}" in result.stderr
    assert not np.isfinite(load_run(tmp_path / "run").record.loss).all()
    shutil.rmtree(tmp_path / "run")
    result = invoke(*options, "--non-finite", "go-on")
    assert result.exit_code == 0, result.output
    assert load_run(tmp_path / "run").record.steps == 9


@pytest.mark.slow
def test_train_config_repeats_a_run_of_the_claims(tmp_path):
    _, experiments = command_app("run")
    ran = CliRunner().invoke(
        experiments, ["run", "longer", "--quick", "--out", str(tmp_path / "claims")]
    )
    assert ran.exit_code == 0, ran.output
    (config,) = (tmp_path / "claims").rglob("config.json")
    result = invoke("--config", config, "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert_same_runs(tmp_path / "again", config.parent)


@pytest.mark.parametrize("network", ["threes-sevens", "linear"])
@pytest.mark.slow
def test_train_supports_other_networks(tmp_path, network):
    result = invoke("--quick", "--network", network, "--watch", "nothing", "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "r" / "report.html").exists()


def start(*arguments):
    """Starts the command in a process, without the devices that this process shows."""
    command = [sys.executable, "-m", "convjax", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*arguments):
    with start(*arguments) as process:
        output = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """The folder of a long run that is not stopped."""
    out = tmp_path_factory.mktemp("untouched") / "run"
    finish(*LONG, "--out", out)
    return out


def test_train_devices_must_divide_the_actual_batch(tmp_path):
    """A batch has at most all 4,000 images."""
    result = invoke("--batch-size", 6000, "--devices", 3, "--quick", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert (
        "devices must divide the batch, which has 4000 images because there are no more"
        in result.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_train_reports_a_missing_library_before_the_training(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "plotly" else found(name)
    )
    result = invoke(*SHORT, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert 'plotly must be installed: pip install "convjax[pages]"' in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_train_reports_an_error_of_the_last_checkpoint(tmp_path, monkeypatch):
    """It is written in the background: its error is raised when the end waits for it."""

    def fails(self):
        raise OSError(errno.ENOSPC, "no checkpoint could be written", str(self.folder))

    monkeypatch.setattr(Checkpoints, "close", fails)
    result = invoke(*SHORT, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "no checkpoint could be written. Files saved before are complete" in result.stderr


@pytest.mark.slow
def test_train_tensorboard_replaces_events_of_a_run_without_checkpoint(short, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    shutil.copytree(short[0], out)
    shutil.rmtree(out / "checkpoints")
    for _ in range(2):
        assert invoke("--resume", "--tensorboard", "--out", out).exit_code == 0
        shutil.rmtree(out / "checkpoints")
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("training/loss")] == list(range(9))


@pytest.mark.slow
class TestSignals:
    """Processes that are stopped, killed and resumed."""

    def stop(self, number, out, *arguments):
        """Sends a signal a moment after the next checkpoint; returns (status, stderr)."""
        before = checkpoints(out)
        with start(*arguments, "--out", out) as process:
            wait_for(lambda: checkpoints(out) - before, process)
            time.sleep(0.1)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        return process.returncode, errors

    def test_train_resumes_after_each_signal(self, untouched, tmp_path):
        out = tmp_path / "run"
        status, errors = self.stop(signal.SIGTERM, out, *LONG)
        assert status == 143
        again = f"convjax train --resume --out {out}"
        assert "saved. Resume with: " + again in errors
        steps = load_run(out).record.steps
        assert 0 < steps < 450
        status, errors = self.stop(signal.SIGKILL, out, "--resume", "--save-seconds", 0.2)
        assert status == -signal.SIGKILL
        assert "Traceback" not in errors
        status, errors = self.stop(signal.SIGINT, out, "--resume", "--save-seconds", 0.2)
        assert status == 130
        assert load_run(out).record.steps > steps
        finish("--resume", "--out", out)
        assert_same_runs(out, untouched)


def checkpoints(out):
    return {path.name for path in (out / "checkpoints").glob("*") if path.name.isdigit()}
