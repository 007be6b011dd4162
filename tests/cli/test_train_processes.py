"""`train` over several processes: the same figures, one folder, and the failure of a process."""

import re
import signal
import time

import pytest

from convjax.runs.run import load_run
from tests.cli.test_train import assert_same_runs, checkpoints, start
from tests.helpers import free_port, wait_for

pytestmark = pytest.mark.slow

# Nothing is watched: compiling statistics would take most of the time, and `test_distributed` has
# them.
RUN = (
    *("--quick", "--batch-size", 32, "--norm", "batch", "--lr-max", 0.001, "--epochs", 30),
    *("--watch", "nothing"),
)
SAVE_OPTIONS = ("--save-seconds", 0.2, "--heartbeat", 3)


class ProcessGroup:
    """Processes of one training; the end of the block kills those still running."""

    def __init__(self, count, *arguments):
        port = free_port()
        self.processes = [
            start(
                *arguments,
                *("--coordinator", f"127.0.0.1:{port}", "--processes", count, "--process-id", i),
            )
            for i in range(count)
        ]

    def __enter__(self):
        return self.processes

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.communicate()


def finish(count, *arguments):
    with ProcessGroup(count, *arguments) as processes:
        for process in processes:
            out, stderr = process.communicate(timeout=400)
            assert process.returncode == 0, stderr
            yield out


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder of a run by two processes, and what each of them printed."""
    out = tmp_path_factory.mktemp("two") / "run"
    return out, list(finish(2, *RUN, "--out", out, "--quiet"))


def test_train_with_two_processes_writes_and_prints_once(two):
    out, (first, second) = two
    assert first.splitlines()[-1] == str(out)
    assert not [line for line in second.splitlines() if "Gloo" not in line]
    run = load_run(out)
    assert run.config["devices"] == 2
    assert run.record.steps == 90
    assert (out / "report.html").exists()


def test_train_resumes_after_a_killed_process(two, tmp_path):
    out, victim = tmp_path / "run", 1  # `test_distributed` kills process 0, too
    with ProcessGroup(2, *RUN, *SAVE_OPTIONS, "--out", out) as processes:
        wait_for(lambda: checkpoints(out), processes[0])
        processes[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        other = processes[1 - victim]
        _, stderr = other.communicate(timeout=60)
        # The heartbeat and a few more seconds; more for a busy machine.
        assert time.monotonic() - began < 30
        assert other.returncode == 4, stderr
        assert re.search(rf"process {victim} \(of 0 to 1\) is gone or did not answer", stderr), (
            stderr
        )
        assert f"train --resume --out {out}" in stderr
    steps = max(map(int, checkpoints(out)))
    assert 0 < steps < 90
    list(finish(2, "--resume", *SAVE_OPTIONS, "--out", out, "--quiet"))
    assert_same_runs(out, two[0])


def test_train_saves_and_stops_all_after_a_signal_to_one(two, tmp_path):
    out = tmp_path / "run"
    with ProcessGroup(2, *RUN, *SAVE_OPTIONS, "--out", out) as processes:
        wait_for(lambda: checkpoints(out), processes[0])
        processes[1].send_signal(signal.SIGTERM)
        ended = [(p.communicate(timeout=60)[1], p.returncode) for p in processes]
    assert [status for _, status in ended] == [143, 143], ended
    assert "saved. Resume with:" in ended[0][0]
    assert load_run(out).record.steps < 90


def test_train_ends_all_after_an_error_in_one(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    with ProcessGroup(2, *RUN, *SAVE_OPTIONS, "--out", tmp_path / "run") as processes:
        ended = [(p.communicate(timeout=60)[1], p.returncode) for p in processes]
    assert [status for _, status in ended] == [2, 4], ended
    # Process 0 checks the folder; the other prints why process 0 stopped.
    assert ended[0][0].startswith("error: --out must be a new or empty folder"), ended
    assert "process 0 (of 0 to 1) stopped: ValueError: --out must be a new or empty" in ended[1][0]
