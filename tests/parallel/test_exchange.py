"""The exchange of texts between processes that are threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from convjax.parallel.exchange import Exchange, ProcessError
from convjax.parallel.peer_monitor import PeerMonitor
from tests.parallel.coordinator import Coordinator


class Ended(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def exchanges():
    """Three processes that wait half a second, and their coordinator."""
    coordinator, found = Coordinator(3), []
    for process in range(3):
        monitor = PeerMonitor(process, 3, heartbeat=0.1, wait=0.5)
        monitor._client = coordinator

        def end(message):
            raise Ended(message)

        monitor.end = end
        found.append(Exchange(coordinator, monitor))
    return found, coordinator


def together(*calls):
    """Makes a call in each thread; returns the results, or exceptions, in their order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
    return [future.exception() or future.result() for future in futures]


def test_texts_are_those_of_all_processes(exchanges):
    peers, coordinator = exchanges
    for number in range(3):
        texts = [f"{number}.{i}" for i in range(3)]
        found = together(
            *(lambda p=p, t=t: p.texts("a call", t) for p, t in zip(peers, texts, strict=True))
        )
        assert found == [dict(enumerate(texts))] * 3
    # Those of earlier calls are deleted.
    keys = {key.split("/")[3] for key in coordinator.values if key.startswith("convjax/calls/all")}
    assert keys == {"3"}


def test_texts_of_a_group_do_not_wait_for_others(exchanges):
    peers, _ = exchanges
    pair = together(*(lambda p=p: p.texts("a call", "x", [2, 0]) for p in (peers[0], peers[2])))
    assert pair == [{0: "x", 2: "x"}] * 2
    assert peers[1].texts("alone", "y", [1]) == {1: "y"}


def test_texts_of_other_calls_raise_in_all(exchanges):
    peers, _ = exchanges
    calls = ("any_process", "any_process", "broadcast")
    found = together(*(lambda p=p, c=c: p.texts(c) for p, c in zip(peers, calls, strict=True)))
    message = (
        "processes must make the same calls in the same order, got any_process in process 0 and "
        "broadcast in process 2. Let every process take the same path through the program, and "
        "stop at the same step."
    )
    assert [(type(error), str(error)) for error in found] == [(ProcessError, message)] * 3


def test_texts_without_a_process_end(exchanges):
    peers, _ = exchanges
    peers[0].monitor._others[1] = 4, "Trainer.run"
    found = together(*(lambda p=p: p.texts("any_process") for p in (peers[0], peers[2])))
    assert [type(error) for error in found] == [Ended, Ended]
    text = "process 1 (of 0 to 2) did not come to any_process within 0.5 s"
    assert all(str(error).startswith(text) for error in found)
    assert str(found[0]).startswith(f"{text}; it last came to Trainer.run. If it needs longer")


def test_texts_arrive_late(exchanges):
    peers, _ = exchanges
    timer = threading.Event()

    def late():
        timer.wait(0.3)
        return peers[2].texts("a call", "late")

    found = together(lambda: peers[0].texts("a call"), lambda: peers[1].texts("a call"), late)
    assert found == [{0: "", 1: "", 2: "late"}] * 3
