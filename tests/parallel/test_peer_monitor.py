"""The monitors of three processes in threads: how they find a failed peer, and what they say."""

import subprocess
import sys
import time

import pytest

from convjax.parallel.peer_monitor import PeerMonitor
from tests.parallel.coordinator import Coordinator


@pytest.fixture
def monitors():
    """Three monitors of one process, whose end is an entry in a list."""
    started, ended = [PeerMonitor(i, 3, heartbeat=0.4) for i in range(3)], []

    def end(process):
        def of_process(message):
            ended.append((process, message))
            raise SystemExit  # of the thread

        return of_process

    for monitor in started:
        monitor.end = end(monitor.process)
    yield started, ended
    for monitor in started:
        monitor._thread.join(20)
        assert not monitor._thread.is_alive()


def start(monitors, coordinator):
    for monitor in monitors:
        monitor.start(coordinator)


def test_monitors_stop_after_the_same_round(monitors):
    start(monitors[0], Coordinator(3))
    for monitor in monitors[0]:
        time.sleep(0.05)
        monitor.finish()
        monitor.at_exit(20)
    assert len({monitor._rounds for monitor in monitors[0]}) == 1
    assert monitors[1] == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_monitor_names_the_dead_process(monitors):
    coordinator = Coordinator(3)
    coordinator.live.remove(2)
    start(monitors[0], coordinator)
    monitors[0][2].finish()  # it is dead, and only the others end by a message
    for monitor in monitors[0][:2]:
        monitor._thread.join(20)
    coordinator.barrier.abort()
    text = "process 2 (of 0 to 2) is gone or did not answer for 0.4 s"
    assert sorted(process for process, _ in monitors[1]) == [0, 1]
    assert all(message.startswith(text) for _, message in monitors[1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_monitor_reports_why_another_process_failed(monitors):
    coordinator = Coordinator(3)
    start(monitors[0], coordinator)
    monitors[0][2].fail("DataError: no such file.\nmore", 1)
    for monitor in monitors[0][:2]:
        monitor._thread.join(20)
    coordinator.barrier.abort()
    text = "process 2 (of 0 to 2) stopped: DataError: no such file. Start all processes again."
    assert sorted(monitors[1]) == [(0, text), (1, text)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_monitor_ends_without_coordinator(monitors):
    coordinator = Coordinator(3)
    coordinator.barrier.abort()  # every call raises
    monitors[0][0].finish()
    start(monitors[0], coordinator)
    for monitor in monitors[0]:
        monitor._thread.join(20)
    # After the training it does not matter.
    assert sorted(process for process, _ in monitors[1]) == [1, 2]
    assert all(message.startswith("process 0 (of 0 to 2) is gone") for _, message in monitors[1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_monitors_end_all_if_one_does_not_come(monitors):
    coordinator = Coordinator(3)
    for monitor in monitors[0]:
        monitor.wait = 0.5
        monitor.arrive("the first call")
    for monitor in monitors[0][:2]:
        monitor.arrive("the second call")
    start(monitors[0], coordinator)
    end = time.monotonic() + 20
    while len(dict(monitors[1])) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    coordinator.barrier.abort()
    reason = (
        "process 2 (of 0 to 2) did not come to the second call within 0.5 s; it last came to the "
        "first call. If it needs longer, as to compile, raise --wait"
    )
    said = dict(monitors[1])
    assert said.keys() == {0, 1, 2}
    assert said[0].startswith(reason) or said[1].startswith(reason)
    assert all(reason in text for text in said.values())


def test_monitors_let_a_long_operation_go_on(monitors):
    for monitor in monitors[0]:
        monitor.wait = 0.2
        monitor.arrive("a long operation")
    start(monitors[0], Coordinator(3))
    time.sleep(1)
    for monitor in monitors[0]:
        monitor.finish()
    assert monitors[1] == []


@pytest.mark.parametrize(("level", "hidden"), [("1", True), ("0", False), (None, True)])
def test_hide_jax_log_hides_its_abort(level, hidden):
    code = (
        "import os, sys; sys.argv[1] and os.environ.update(TF_CPP_MIN_LOG_LEVEL=sys.argv[1]);"
        "from convjax.parallel.peer_monitor import hide_jax_log; hide_jax_log();"
        "from jax._src.lib import _jax;"
        "client = _jax.get_distributed_runtime_client('127.0.0.1:1', 0, init_timeout=1);"
        "client.connect()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, level or ""], capture_output=True, text=True, timeout=60
    )
    assert found.returncode < 0  # JAX aborts
    assert ("Terminating process" in found.stderr) is not hidden, found.stderr
