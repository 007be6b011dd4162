"""The table of a training: a line for each epoch, and a bar for the steps between them."""

import math
import sys
from typing import Any, TextIO

from convjax.train import Callback

# Columns of a row of metrics that a table does not show: numbers of the loop itself.
_HIDDEN = {"epoch", "step", "seconds", "compile_seconds", "train_accuracy"}
_WIDTH = 12


class EpochTable(Callback):
    """Prints fastai's table while a training goes on.

    The bar is drawn over itself, on a terminal and in a notebook alone.

    Args:
      steps: of the training.
      out: where it is printed; standard output by default.
    """

    def __init__(self, steps: int, out: TextIO | None = None):
        self._steps, self._out = steps, sys.stdout if out is None else out
        self._done, self._headed = 0, False
        # A notebook's output is no terminal, but draws a line over itself, too.
        notebook = type(self._out).__module__.startswith("ipykernel")
        self._draws = notebook or bool(getattr(self._out, "isatty", bool)())

    def on_steps(self, done: int) -> None:
        """Draws the bar."""
        self._done += done
        if self._draws:
            share = min(1.0, self._done / self._steps)
            bar = "█" * math.floor(30 * share)
            self._write(f"\r{bar:<30} {share:4.0%} of {self._steps:,} steps")

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        """Prints the line of an epoch, below the names of the columns."""
        columns = {name: value for name, value in metrics.items() if name not in _HIDDEN}
        if not self._headed:
            self._headed = True
            names = "".join(f"{name:>{_width(name)}}" for name in columns)
            self._line(f"{'epoch':<5}{names}{'time':>8}")
        figures = "".join(f"{value:>{_width(name)}.6f}" for name, value in columns.items())
        minutes, seconds = divmod(round(metrics["seconds"] + metrics["compile_seconds"]), 60)
        self._line(f"{metrics['epoch']:<5}{figures}{f'{minutes:02}:{seconds:02}':>8}")

    def _line(self, text: str) -> None:
        self._write(f"\r{text:<60}\n" if self._draws else f"{text}\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _width(name: str) -> int:
    return max(_WIDTH, len(name) + 2)
