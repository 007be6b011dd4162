import os
import signal
import threading

import pytest

from convjax.runs.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_a_request_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts
        signal.raise_signal(number)
        assert interrupts
        assert interrupts.received is number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_the_first_is_answered(capfd):
    with Interrupts("stopping"):
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == "stopping\n"


def test_it_is_a_request_where_nobody_reads_the_answer(monkeypatch):
    """Ctrl-C in a pipe ends `tee`, too."""
    reader, writer = os.pipe()
    os.close(reader)
    write = os.write
    monkeypatch.setattr(os, "write", lambda _, text: write(writer, text))
    with Interrupts("stopping") as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received is signal.SIGINT
    os.close(writer)


def test_another_thread_is_left_alone():
    found = []

    def work():
        with Interrupts() as interrupts:
            found.append(bool(interrupts))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
