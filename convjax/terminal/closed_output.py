"""Output whose reader ends before the command does, as after `| head -1`."""

import os
import sys
from contextlib import suppress
from typing import Any

# As the shell shows it for a program that SIGPIPE has ended.
STATUS_CLOSED = 141


class ClosableOutput:
    """A text file that may lose its reader; what is written afterwards is discarded.

    Args:
      file: such as sys.stdout; None where the process has none.

    Attributes:
      closed_by_reader: whether the reader has ended.
    """

    def __init__(self, file: Any):
        self._file = open(os.devnull, "w") if file is None else file  # noqa: SIM115
        self.closed_by_reader = False

    def write(self, text: str) -> int:
        """Writes text."""
        self._try(self._file.write, text)
        return len(text)

    def flush(self) -> None:
        """Hands on what was written."""
        self._try(self._file.flush)

    def _try(self, call: Any, *arguments: Any) -> None:
        if not self.closed_by_reader:
            try:
                call(*arguments)
            except BrokenPipeError:
                self.closed_by_reader = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def discard_output() -> None:
    """Discards what Python would write at its end, where it would report the missing reader."""
    for file in (sys.__stdout__, sys.__stderr__):
        with suppress(AttributeError, OSError, ValueError):  # closed, or not a file
            file.flush()  # type: ignore[union-attr]
            continue
        with suppress(AttributeError, OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # type: ignore[union-attr]
