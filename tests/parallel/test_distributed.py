"""Several processes on this machine: they train as one, and end when one of them fails."""

import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from convjax.parallel import distributed
from convjax.parallel.peer_monitor import PEER_GONE
from tests.helpers import free_port
from tests.parallel import process as script
from tests.parallel.group import ROOT, Group
from tests.parallel.process import HEARTBEAT


@pytest.fixture(scope="module")
def alone():
    """The same training in this process, on one device and on four."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr("convjax.train.scan_loop.CHUNK_STEPS", 4)
        return {count: script.train(jax.devices("cpu")[:count], streamed=False) for count in (1, 4)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "devices", "task"), [(2, 2, "train and stream"), (4, 1, "train")]
)
def test_trainer_over_processes_is_that_of_one(tmp_path, alone, count, devices, task):
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
            # The scores, too, because these few batches are one chunk.
            kept = name.removeprefix("streamed ")
            np.testing.assert_array_equal(value, found[0][kept], err_msg=name)
            continue
        for wanted in alone.values():
            # Float64 numbers of order 1. Gloo and XLA sum in different orders, and Adam magnifies
            # the roundings, as for several devices of one process. Statistics are sums in float32
            # of at most 256 values of order 1; counts are exact.
            atol = 1e-6 if name in ("mean", "std") else 1e-11
            np.testing.assert_allclose(value, wanted[name], rtol=1e-9, atol=atol, err_msg=name)


# JAX detects a dead process after HEARTBEAT; process 0 ends three rounds of a tenth of it later.
# The rest is for a busy machine.
BOUND = 1.5 * HEARTBEAT + 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "sent"),
    [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)],
)
def test_monitor_peers_ends_the_others_when_one_is_dead(tmp_path, victim, sent):
    with Group(tmp_path, 2, 1, "loop") as group:
        group.wait_for("*.ready", 2)
        os.kill(group.processes[victim].pid, sent)
        (end,) = group.ends(BOUND, but=[victim]).values()
    assert end == (
        PEER_GONE,
        f"error: process {victim} (of 0 to 1) is gone or did not answer for {HEARTBEAT:g} s; the "
        "training cannot continue without it. Resume with --resume.",
    )


@pytest.mark.slow
def test_monitor_peers_ends_the_others_after_an_exception(tmp_path):
    with Group(tmp_path, 3, 1, "error") as group:
        group.wait_for("*.ready", 2)
        ends = group.ends(BOUND + 60)
    reason = (
        "process 1 (of 0 to 2) stopped: ValueError: an error in one process. Resume with --resume."
    )
    assert ends[0] == ends[2] == (PEER_GONE, f"error: {reason}")
    assert ends[1] == (1, "ValueError: an error in one process.")


@pytest.mark.slow
def test_initialize_ends_without_the_others():
    code = "from convjax import distributed as d; d.initialize('127.0.0.1:{}', 2, {}, timeout=2)"
    waiting = [  # the coordinator alone, and another process alone
        subprocess.Popen(
            [sys.executable, "-c", code.format(free_port(), process)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    for each in waiting:
        _, stderr = each.communicate(timeout=60)
        last = stderr.rstrip().rpartition("\n")[2]
        assert each.returncode == PEER_GONE
        assert last.startswith("error: not all 2 processes connected at 127.0.0.1:")
        assert "within 2 s. Start every process with its own id" in last


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("127.0.0.1:80", 2, None),
            "must be given together, got no process_id. Name all three, --coordinator",
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
def test_initialize_rejects_arguments_before_connecting(given, message):
    with pytest.raises(ValueError, match=message):
        distributed.initialize(*given)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["timeout", "heartbeat"])
def test_initialize_rejects_times_that_are_not_positive(name, seconds):
    with pytest.raises(ValueError, match=f"{name} must be a positive number of seconds"):
        distributed.initialize(**{name: seconds})


def test_initialize_rejects_a_port_in_use():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ValueError, match=f"must have a free port, .* port {port} cannot be opened"
        ):
            distributed.initialize(f"127.0.0.1:{port}", 2, 0)


def test_initialize_without_a_cluster():
    code = "from convjax import distributed as d; d.initialize()"
    cluster = ("SLURM", "OMPI", "JAX", "TPU", "KUBERNETES", "PMI")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(cluster)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "ValueError: no cluster was detected" in found.stderr
    assert "--coordinator HOST:PORT --processes N --process-id I" in found.stderr


def test_distributed_functions_with_one_process():
    assert distributed.is_primary()
    assert distributed.any_process(True) is True
    assert distributed.any_process(False) is False
    tree = {"a": np.zeros(2)}
    assert distributed.broadcast(tree) is tree
    assert distributed.process_count() == 1
    with pytest.raises(KeyError), distributed.monitor_peers():
        raise KeyError


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
def test_exit_status_of_an_exception(error, status):
    assert distributed._status(error) == status


def test_exit_status_of_click():
    typer = pytest.importorskip("typer")
    assert distributed._status(typer.Exit(2)) == 2
    assert distributed._status(typer.Exit()) == 0
