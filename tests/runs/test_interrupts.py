import os
import signal
import threading

import pytest

from convjax.runs.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_first_signal_requests_second_interrupts(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts
        signal.raise_signal(number)
        assert interrupts
        assert interrupts.received is number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_interrupts_prints_its_message(capfd):
    with Interrupts("stopping"):
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == "stopping\n"


def test_interrupts_with_a_closed_stderr(monkeypatch):
    """Ctrl-C in a pipe ends `tee`, too."""
    reader, writer = os.pipe()
    os.close(reader)
    write = os.write
    monkeypatch.setattr(os, "write", lambda _, text: write(writer, text))
    with Interrupts("stopping") as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received is signal.SIGINT
    os.close(writer)


def test_interrupts_does_nothing_in_another_thread():
    found = []

    def work():
        with Interrupts() as interrupts:
            found.append(bool(interrupts))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
