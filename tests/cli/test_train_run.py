"""One training as a process whose folder, disk, output or checkpoint changes under it."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from convjax.runs.run import load_run
from tests.cli.test_train import assert_same_runs, checkpoints, finish, invoke, start
from tests.helpers import wait_for

SHORT = ("--quick", "--batch-size", 32, "--epochs", 3, "--lr-max", 0.001)
LONG = ("--quick", "--batch-size", 32, "--epochs", 3000, "--lr-max", 0.001, "--save-seconds", 0.2)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a short run that nothing disturbed, in a process of its own."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(*SHORT, "--out", out)
    return out


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def changed(path, **values):
    """Changes a configuration as an editor would, without its checksums."""
    config = json.loads(path.read_text())
    config["setting"] |= values
    del config["checksums"]
    path.write_text(json.dumps(config))


def test_resume_names_what_was_changed_in_the_configuration(copy):
    file = copy / "config.json"
    text = file.read_text()
    file.write_text(text.replace('"lr_max": 0.001', '"lr_max": 0.003'))
    result = invoke("--resume", "--out", copy)
    assert result.exit_code == 2
    assert "changed after it was written: setting.lr_max is now 0.003. Restore" in result.stderr
    again = invoke("--config", copy, "--out", copy / "again")
    assert again.exit_code == 2
    assert 'give options such as --lr-max, or remove "checksums" from it.' in again.stderr
    file.write_text(text)
    changed(file, activate_first=True)
    result = invoke("--resume", "--out", copy)
    assert result.exit_code == 2
    assert f"the checkpoint {copy / 'checkpoints' / '9'} is of a run with " in result.stderr
    assert "setting.activate_first False, not True: the configuration was changed" in result.stderr
    errors = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1  # the note is of the devices of the tests


def test_resume_of_a_folder_that_was_moved(copy, tmp_path, whole):
    """The folder and the environment may differ."""
    copy.rename(tmp_path / "moved")
    (tmp_path / "moved" / "model.npz").unlink()
    config = json.loads((tmp_path / "moved" / "config.json").read_text())
    config["environment"]["jax"] = "0.9"
    del config["checksums"]
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config))
    result = invoke("--resume", "--out", tmp_path / "moved")
    assert result.exit_code == 0, result.output
    assert "jax '0.9', not " in result.stderr.removeprefix("note: the run began with ")
    assert load_run(tmp_path / "moved").record.steps == load_run(whole).record.steps


@pytest.mark.parametrize("kind", ["renamed", "removed"])
def test_train_stops_when_its_folder_is_gone(tmp_path, kind):
    out, other = tmp_path / "run", tmp_path / "other"
    with start(*LONG, "--out", out) as process:
        wait_for(lambda: checkpoints(out), process)
        out.rename(other)
        if kind == "removed":
            shutil.rmtree(other)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    if kind == "removed":
        # The removal may meet files that are being written.
        assert line.startswith(f"error: the folder {out} was re")
    else:
        assert line.startswith(f"error: the folder {out} was renamed to {other} while ")
        assert checkpoints(other)
    assert not out.exists()


def test_train_does_not_lose_its_lock_with_the_file(tmp_path):
    out = tmp_path / "run"
    with start(*LONG, "--out", out) as process:
        wait_for(lambda: checkpoints(out), process)
        (out / ".lock").unlink()
        with start("--resume", "--out", out) as second:
            _, errors = second.communicate(timeout=60)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert (second.returncode, process.returncode) == (2, 143)
    assert "another process is writing into" in errors


def test_train_stopped_while_it_draws_is_resumed(tmp_path, whole):
    out = tmp_path / "run"
    with start(*SHORT, "--out", out) as process:
        wait_for(lambda: (out / "plots").exists(), process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped after 9 steps, saved. Resume with: " in errors
    finish("--resume", "--out", out)
    assert_same_runs(out, whole)


def test_train_stops_when_nobody_reads_its_output(tmp_path):
    out = tmp_path / "run"
    with start(*LONG, "--out", out) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=120)
        errors = process.stderr.read()
    assert process.returncode == 141
    (line,) = errors.splitlines()
    assert line.startswith("stopped after ")
    assert int(max(checkpoints(out), key=int)) == load_run(out).record.steps


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
from convjax.cli.app import app
app(sys.argv[1:])
"""


def test_train_on_a_full_disk_is_resumed(tmp_path, whole):
    """A limit on the size of files stands for a full disk."""
    out = tmp_path / "run"
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, "train", *map(str, SHORT), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: cannot read or write {out}")
    assert "no checkpoint could be written (" in line
    finish("--resume", "--out", out)
    assert_same_runs(out, whole)


def test_resume_of_a_checkpoint_that_cannot_be_read_prints_one_line(copy, whole):
    newest = copy / "checkpoints" / "9"
    for file in (newest / "arrays").rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with start("--resume", "--out", copy) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith(f"error: the checkpoint {newest} is damaged or cannot be read (")
    shutil.rmtree(newest)
    finish("--resume", "--out", copy)
    assert_same_runs(copy, whole)
