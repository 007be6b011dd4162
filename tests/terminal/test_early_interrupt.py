import signal
import subprocess
import sys

import pytest

from convjax.terminal.early_interrupt import interrupts_raised

EARLY = """
import signal
from convjax.terminal.early_interrupt import exit_at_interrupts, interrupts_raised
exit_at_interrupts()
try:
    with interrupts_raised():
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("raised", flush=True)
try:
    signal.raise_signal(signal.SIGINT)
finally:
    print("not reached", flush=True)
"""


def test_interrupts_are_raised_within_the_block_and_exit_outside():
    ended = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "raised\n", "")


def test_interrupts_raised_leaves_other_handlers():
    before = signal.getsignal(signal.SIGINT)
    caught = []
    signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        with interrupts_raised():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt), interrupts_raised():
        signal.raise_signal(signal.SIGINT)
