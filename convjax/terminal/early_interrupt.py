"""Interrupts before a command begins its work, above all during the imports, which take seconds.

An exception within the imports of compiled libraries would end in an abort or a traceback.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


def exit_at_interrupts() -> None:
    """Makes SIGINT end this process at once with status 130, without any message."""
    signal.signal(signal.SIGINT, _exit)


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Within the block SIGINT raises KeyboardInterrupt, if it would end the process otherwise."""
    own = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is _exit
    )
    if own:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if own:
            exit_at_interrupts()


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)
