"""`train` over several processes: the same figures, one folder, and the failure of a process."""

import re
import signal
import time

import numpy as np
import pytest
from PIL import Image

from convjax.runs.run import load_run
from tests.cli.test_train import assert_same_runs, checkpoints, start
from tests.helpers import free_port, wait_for
from tests.parallel.group import ends_of

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

    def __init__(self, count, *arguments, of_last=()):
        port = free_port()
        self.processes = [
            start(
                *arguments,
                *("--coordinator", f"127.0.0.1:{port}", "--processes", count, "--process-id", i),
                *(of_last if i == count - 1 else ()),
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


# An option, the value in process 0, and another one for process 1.
DIFFERING = {
    "network": ("digits", "threes-sevens"),
    "norm": ("none", "batch"),
    "first_kernel": (5, 3),
    "batch_size": (64, 32),
    "epochs": (1, 2),
    "schedule": ("constant", "one-cycle"),
    "lr_max": (0.06, 0.1),
    "scores": (1, 2),
    "dtype": ("float32", "bfloat16"),
    "data": ("mnist5k", "mnist"),
    "seed": (0, 1),
    "layout": ("auto", "NHWC"),
    "quick": (False, True),
    "watch": ("everything", "nothing"),
    "watch_every": (1, 2),
    "non_finite": ("stop", "go-on"),
    "devices": ("all", 2),
    "piece": (512, 100),
    "precision": ("default", "high"),
    "deterministic": (False, True),
}

# Each case in turn: all processes raise, and go on with the next.
COMPARE_OPTIONS = """
from convjax import distributed
from convjax.cli.train_agreement import agree_on_data, agree_on_options
from convjax.cli.train_config import resolved
from convjax.cli.train_options import TrainCommand, TrainOptions
from convjax.terminal.dataclass_options import option_names
from convjax.cli.train_config import TrainConfig

differing, process = DIFFERING, (COUNT)[1]
assert differing.keys() == set(option_names(TrainConfig))
distributed.initialize("ADDRESS", COUNT)

def expect(name, first, other, compare):
    text = f"{name} must be the same in every process, got {first} in process 0 and {other} "
    try:
        compare()
    except distributed.ProcessError as error:
        assert str(error).startswith(text), (text, error)
    else:
        raise AssertionError(name)

for name, (first, other) in differing.items():
    given = {name: other} if process else {}
    def compare():
        changed = {n: None if v == "none" else v for n, v in given.items()}
        config = resolved(None, changed)
        agree_on_options(config, given.get("devices"), TrainCommand(), TrainOptions())
    expect("--" + name.replace("_", "-"), first, other, compare)

for name in ("resume", "dry_run", "stream"):
    given = {name: bool(process)}
    def compare():
        command = TrainCommand(**(given if name != "stream" else {}))
        options = TrainOptions(**(given if name == "stream" else {}))
        agree_on_options(TrainConfig(), None, command, options)
    expect("--" + name.replace("_", "-"), False, True, compare)

full = {"data": "x/", "sha256": f"ab{process}", "classes": ["3", "7"]}
full |= {"steps": 3, "mean": [0], "std": [1]}
texts = [f"x/ with the sha256 ab{i} and the classes 3, 7" for i in range(2)]
expect("--data", *texts, lambda: agree_on_data(full))
""".replace("DIFFERING", repr(DIFFERING))


def test_train_compares_every_option():
    ends = ends_of(COMPARE_OPTIONS)
    assert [status for status, _ in ends] == [0, 0], ends


@pytest.mark.parametrize(
    ("option", "first", "other"),
    [("--seed", 0, 1), ("--epochs", 30, 31)],
)
def test_train_ends_all_if_an_option_differs(tmp_path, option, first, other):
    given = *RUN, "--out", tmp_path / "run"
    with ProcessGroup(2, *given, of_last=(option, other)) as processes:
        ended = [(p.communicate(timeout=60)[1], p.returncode) for p in processes]
    line = (
        f"error: {option} must be the same in every process, got {first} in process 0 and {other} "
        "in process 1. Start all processes with the same options but --process-id, --data-dir and "
        "--out.\n"
    )
    assert ended == [(line, 2), (line, 2)]
    assert not (tmp_path / "run").exists()


def test_train_ends_all_if_the_images_differ(tmp_path):
    folders = [tmp_path / "first" / "digits", tmp_path / "second" / "digits"]
    rng = np.random.default_rng(0)
    for folder in folders:
        for split in ("train", "test"):
            for label in "01":
                (folder / split / label).mkdir(parents=True)
                for name in "abcd":
                    pixels = rng.integers(0, 256, (8, 8), np.uint8)
                    Image.fromarray(pixels).save(folder / split / label / f"{name}.png")
    given = "--quick", "--batch-size", 2, "--watch", "nothing", "--out", tmp_path / "run"
    data = "--data", folders[0]
    with ProcessGroup(2, *given, *data, of_last=("--data", folders[1])) as processes:
        ended = [(p.communicate(timeout=60)[1], p.returncode) for p in processes]
    assert [status for _, status in ended] == [2, 2], ended
    assert ended[0][0] == ended[1][0]
    assert re.fullmatch(
        r"error: --data must be the same in every process, got digits/ with the sha256 \w+ and the "
        r"classes 0, 1 in process 0 and digits/ with .* --data-dir may be a copy of them\.\n",
        ended[0][0],
    ), ended
