"""Several processes on this machine: they train as one, and end when one of them is gone."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from convjax.parallel import distributed
from convjax.parallel.heartbeat import PEER_GONE, Peers
from tests.helpers import free_port
from tests.parallel import process as script
from tests.parallel.process import HEARTBEAT

ROOT = Path(__file__).parents[2]


class Group:
    """So many processes of `tests/parallel/process.py`, all ended in the end."""

    def __init__(self, folder, count, devices, task, *, started=None):
        self.folder, port = folder, free_port()
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        self.processes = {
            i: subprocess.Popen(
                [
                    *(sys.executable, "-W", "error", "-m", "tests.parallel.process", str(folder)),
                    *(str(i), str(count), str(port), str(devices), task),
                ],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in (range(count) if started is None else started)
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.processes.values():
            each.kill()
            each.communicate()

    def wait_for(self, pattern, count, seconds=120):
        """Waits until so many files are in the folder."""
        end = time.monotonic() + seconds
        while len(list(self.folder.glob(pattern))) < count:
            assert time.monotonic() < end, self.ends(1)
            assert all(each.poll() is None for each in self.processes.values()), self.ends(1)
            time.sleep(0.05)

    def ends(self, seconds, but=()):
        """Returns exit status and last line on stderr of each, which must have ended by then."""
        end, found = time.monotonic() + seconds, {}
        for i, each in self.processes.items():
            if i not in but:
                _, told = each.communicate(timeout=max(0.1, end - time.monotonic()))
                found[i] = each.returncode, told.rstrip().rpartition("\n")[2]
        return found


@pytest.fixture(scope="module")
def alone():
    """The same training in this process: on as many devices as there are in all, or on one."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr("convjax.train.scan_loop.CHUNK_STEPS", 4)
        return {count: script.train(jax.devices("cpu")[:count], streamed=False) for count in (1, 4)}


@pytest.mark.parametrize(
    ("count", "devices", "task"), [(2, 2, "train and stream"), (4, 1, "train")]
)
def test_several_processes_train_as_one(tmp_path, alone, count, devices, task):
    with Group(tmp_path, count, devices, task) as group:
        ends = group.ends(150)
        assert {i: status for i, (status, _) in ends.items()} == dict.fromkeys(range(count), 0), (
            ends
        )
    found = [dict(np.load(tmp_path / f"{i}.npz")) for i in range(count)]
    for name, value in found[0].items():
        for other in found[1:]:
            np.testing.assert_array_equal(other[name], value, err_msg=name)
        if name.startswith("streamed "):
            # Of a few batches in one chunk, as here, the scores as well.
            kept = name.removeprefix("streamed ")
            np.testing.assert_array_equal(value, found[0][kept], err_msg=name)
            continue
        for wanted in alone.values():
            # Float64 numbers of order 1, whose sums Gloo and XLA take in other orders, and what
            # Adam makes of that: as for several devices of one process. Statistics are sums in
            # float32 of at most 256 values of order 1; counts are exact.
            atol = 1e-6 if name in ("mean", "std") else 1e-11
            np.testing.assert_allclose(value, wanted[name], rtol=1e-9, atol=atol, err_msg=name)


# Silence is noticed after HEARTBEAT; a tenth of it passes between looks, and process 0 stays three
# tenths longer. The rest is for a busy machine.
BOUND = 1.5 * HEARTBEAT + 10


@pytest.mark.parametrize(
    ("victim", "sent"),
    [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)],
)
def test_the_others_end_when_one_is_gone(tmp_path, victim, sent):
    with Group(tmp_path, 2, 1, "loop") as group:
        group.wait_for("*.ready", 2)
        os.kill(group.processes[victim].pid, sent)
        (end,) = group.ends(BOUND, but=[victim]).values()
    assert end == (
        PEER_GONE,
        f"error: process {victim} (of 0 to 1) is gone or did not answer for {HEARTBEAT:g} s; the "
        "training cannot go on without it. Go on with --resume.",
    )


def test_the_others_end_when_one_makes_a_mistake(tmp_path):
    with Group(tmp_path, 3, 1, "mistake") as group:
        group.wait_for("*.ready", 2)
        ends = group.ends(BOUND + 60)
    told = "process 1 (of 0 to 2) stopped: ValueError: a mistake of its own. Go on with --resume."
    assert ends[0] == ends[2] == (PEER_GONE, f"error: {told}")
    assert ends[1] == (1, "ValueError: a mistake of its own.")


def test_a_process_that_never_starts():
    code = "from convjax import distributed as d; d.initialize('127.0.0.1:{}', 2, {}, timeout=2)"
    waiting = [  # the one that is called, and the one that calls
        subprocess.Popen(
            [sys.executable, "-c", code.format(free_port(), process)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    for each in waiting:
        _, told = each.communicate(timeout=60)
        last = told.rstrip().rpartition("\n")[2]
        assert each.returncode == PEER_GONE
        assert last.startswith("error: not all 2 processes connected at 127.0.0.1:")
        assert "within 2 s. Start every one of them" in last


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("127.0.0.1:80", 2, None),
            "go together, got no process_id. Name all three, --coordinator",
        ),
        ((None, 2, None), "got no coordinator and no process_id"),
        (("127.0.0.1", 2, 0), r"coordinator must be HOST:PORT .* got '127\.0\.0\.1'"),
        ((":80", 2, 0), "coordinator must be HOST:PORT"),
        (("here:65536", 2, 0), "a port from 1 to 65535, got 'here:65536'"),
        (("here:x", 2, 0), "a port from 1 to 65535, got 'here:x'"),
        (("here:80", 2, 2), "process_id must be from 0 to processes − 1, got 2 of 2"),
        (("here:80", 0, 0), "process_id must be from 0 to processes − 1, got 0 of 0"),
        (("here:80", 2.5, 0), "must be whole numbers, got 2.5 and 0"),
    ],
)
def test_what_cannot_be_is_told_before_any_connection(given, message):
    with pytest.raises(ValueError, match=message):
        distributed.initialize(*given)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["timeout", "heartbeat"])
def test_times_are_positive(name, seconds):
    with pytest.raises(ValueError, match=f"{name} must be a positive number of seconds"):
        distributed.initialize(**{name: seconds})


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of this computer cannot be had"):
            distributed.initialize(f"127.0.0.1:{port}", 2, 0)


def test_no_cluster_to_detect():
    code = "from convjax import distributed as d; d.initialize()"
    cluster = ("SLURM", "OMPI", "JAX", "TPU", "KUBERNETES", "PMI")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(cluster)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "ValueError: no cluster was detected" in found.stderr
    assert "--coordinator HOST:PORT --processes N --process-id I" in found.stderr


def test_one_process_needs_no_others():
    assert distributed.is_primary()
    assert distributed.any_process(True) is True
    assert distributed.any_process(False) is False
    tree = {"a": np.zeros(2)}
    assert distributed.broadcast(tree) is tree
    assert distributed.process_count() == 1
    with pytest.raises(KeyError), distributed.peers_watched():
        raise KeyError


class Store:
    """A coordinator's key-value store, with peers whose beats the test gives."""

    def __init__(self):
        self.values, self.answers, self.others = {}, True, {}
        self.rounds = 0

    def key_value_set(self, key, value, allow_overwrite=False):
        if not self.answers:
            raise RuntimeError("UNAVAILABLE")
        self.values[key] = value

    def key_value_dir_get(self, key):
        self.rounds += 1
        for i, alive in self.others.items():
            if alive(self.rounds):
                self.values[f"{key}beat/{i}"] = str(self.rounds)
        return [(name, value) for name, value in self.values.items() if name.startswith(key)]


@pytest.fixture
def watch():
    """A watch over three processes, as process 1, whose end is an entry in a list."""
    peers, ended = Peers(1, 3, None, heartbeat=0.4), []

    def end(message):
        ended.append(message)
        peers._stopped.set()

    peers.end = end
    yield peers, ended
    peers._stopped.set()
    for thread in peers._threads:
        thread.join()


def outcome(watch, store, seconds=5.0):
    peers, ended = watch
    peers.start(store)
    end = time.monotonic() + seconds
    while not ended and time.monotonic() < end:
        time.sleep(0.02)
    return ended


def test_silence_is_counted_in_beats(watch):
    store = Store()
    # Process 2 is silent for half as long as is allowed, again and again, and then for good.
    store.others = {0: lambda n: True, 2: lambda n: n % 6 == 0 and n < 30}
    (message, *_) = outcome(watch, store)
    assert message.startswith("process 2 (of 0 to 2) is gone or did not answer for 0.4 s")
    assert store.rounds > 30
    assert "convjax/peers/gone/2" in store.values  # for the others, who end for the same reason


def test_a_coordinator_that_does_not_answer(watch):
    store = Store()
    store.answers = False
    assert outcome(watch, store)[0].startswith("process 0 (of 0 to 2) is gone")


def test_what_another_found_is_believed(watch):
    store = Store()
    store.others = {0: lambda n: True, 2: lambda n: True}
    store.values["convjax/peers/gone/1"] = ""
    assert outcome(watch, store)[0].startswith("the other processes ended without this one")


def test_a_peer_that_says_why_it_leaves(watch):
    store = Store()
    store.others = {0: lambda n: True, 2: lambda n: True}
    store.values["convjax/peers/left/2"] = "DataError: no such file"
    wanted = "process 2 (of 0 to 2) stopped: DataError: no such file. Start all processes again."
    assert outcome(watch, store)[0] == wanted


def test_after_the_training_silence_does_not_matter(watch):
    store = Store()
    watch[0].finish()
    assert outcome(watch, store, seconds=1.0) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SystemExit(), 0),
        (SystemExit(0), 0),
        (SystemExit(3), 3),
        (SystemExit("a message"), 1),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 1),
    ],
)
def test_the_exit_status_of_an_exception(error, status):
    assert distributed._status(error) == status


def test_the_exit_status_that_click_gives():
    typer = pytest.importorskip("typer")
    assert distributed._status(typer.Exit(2)) == 2
    assert distributed._status(typer.Exit()) == 0
