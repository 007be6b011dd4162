"""Signals that ask a training to stop, which it does where it can go on."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

# What a terminal, and what a cluster's scheduler sends before it takes the machine away.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While the block lasts, the first SIGINT or SIGTERM is a request; a second interrupts at once.

    Signals reach a process's main thread alone; in another one this does nothing.

    Args:
      message: a line for stderr when the first comes.

    Attributes:
      received: the signal that came, or None.
    """

    def __init__(self, message: str = ""):
        self.received: signal.Signals | None = None
        self._message = message
        self._before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.received is not None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {name: signal.signal(name, self._request) for name in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for name, handler in self._before.items():
            # None stands for one that was not set from Python, which cannot be put back.
            signal.signal(name, signal.SIG_DFL if handler is None else handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if self._message:
            # Not by print, which may be at work itself where the signal came. Where nobody reads
            # it any more, as Ctrl-C ends `tee` too, the training is still to be saved.
            with suppress(OSError):
                os.write(2, f"{self._message}\n".encode())
