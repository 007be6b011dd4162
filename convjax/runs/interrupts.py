"""Signals that stop a training where it can be resumed."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

# Sent by a terminal, and by the scheduler of a cluster before it takes the machine back.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context manager: the first SIGINT or SIGTERM is a request, the second interrupts at once.

    It is true once a signal was received. Signals are delivered to the main thread only; in another
    thread this does nothing.

    Args:
      message: a line for stderr at the first signal.

    Attributes:
      received: the signal that was received, or None.

    Examples:
      >>> import signal
      >>> from convjax.runs import Interrupts
      >>> with Interrupts() as interrupts:
      ...     before = bool(interrupts)
      ...     signal.raise_signal(signal.SIGTERM)
      >>> before, bool(interrupts), interrupts.received.name
      (False, True, 'SIGTERM')
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
            # None is a handler that was not set from Python, which cannot be restored.
            signal.signal(name, signal.SIG_DFL if handler is None else handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        if self._message:
            # Not by print, which the signal may have interrupted. The reader of a pipe may have
            # ended, as Ctrl-C ends `tee` too; the training must still be saved.
            with suppress(OSError):
                os.write(2, f"{self._message}\n".encode())
