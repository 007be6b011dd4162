"""The output of `train`: a table on the console, JSON lines, or one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from convjax.chapter.observer import Observer
from convjax.chapter.setting import Setting
from convjax.io.json_files import nonfinite_to_null
from convjax.terminal.console import console, print_line
from convjax.terminal.console_observer import ConsoleObserver


class TrainObserver(Observer):
    """Is notified of one training and of its end; this base class does nothing."""

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """All files have been written."""

    def stopped(self, step: int, resume_command: str) -> None:
        """A signal stopped the training after `step` steps."""


class QuietOutput(TrainObserver):
    """Prints the folder at the end, or how to resume."""

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """Prints the folder."""
        typer.echo(folder)

    def stopped(self, step: int, resume_command: str) -> None:
        """Prints to stderr."""
        typer.echo(f"stopped after {step} steps, saved. Resume with: {resume_command}", err=True)


class TableOutput(TrainObserver, ConsoleObserver):
    """Prints a row for each evaluation; on a terminal, also a bar with the time left."""

    def on_restore(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """Prints the rows of the earlier evaluations, and advances the bar."""
        for row in metrics:
            self.on_evaluation(row)
        if steps == self._total:
            text = f"the training was finished, after {steps} steps; plots and report follow"
        else:
            text = f"resuming after {steps} steps" if steps else "no checkpoint: starting again"
        self.console.print(text, highlight=False)
        self.on_steps(steps)

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """Prints the headings of the table."""
        self._total = steps
        super().training(setting, seed, steps, watched=watched)

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """Prints the folder and the page."""
        print_line(self.console, f"the run: {folder}")
        print_line(self.console, f"the page: {folder / 'report.html'}")

    def stopped(self, step: int, resume_command: str) -> None:
        """Prints to stderr."""
        self.progress.stop()
        QuietOutput().stopped(step, resume_command)


class JsonOutput(TrainObserver):
    """Prints one JSON object per line; numbers that are not finite are null.

    The key "event" is "started", "restored", "scored", "finished" or "stopped".

    Args:
      config: the content of config.json.
    """

    def __init__(self, config: dict[str, Any]):
        self._config = config

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """Prints the configuration."""
        self._print("started", steps=steps, config=self._config)

    def on_restore(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """Prints the step of the checkpoint."""
        self._print("restored", step=steps)

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        """Prints the metrics of an evaluation."""
        self._print("scored", **metrics)

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """Prints the folder and the last metrics."""
        page = folder / "report.html"
        self._print("finished", folder=str(folder), report=str(page), **metrics[-1])

    def stopped(self, step: int, resume_command: str) -> None:
        """Prints the step and the command that resumes the training."""
        self._print("stopped", step=step, again=resume_command)

    def _print(self, event: str, **fields: Any) -> None:
        line = {"event": event, **fields}
        typer.echo(json.dumps(nonfinite_to_null(line), ensure_ascii=False, allow_nan=False))


@contextmanager
def train_output(
    config: dict[str, Any], *, silent: bool, quiet: bool, json_lines: bool
) -> Iterator[TrainObserver]:
    """Yields the observer that prints a training; within the block its bars are shown.

    Args:
      config: the content of config.json.
      silent: whether to print nothing at all, in every process but the first.
      quiet: whether to print only the folder, at the end.
      json_lines: whether to print JSON lines.
    """
    if silent:
        yield TrainObserver()
    elif json_lines:
        yield JsonOutput(config)
    elif quiet:
        yield QuietOutput()
    else:
        table = TableOutput(console())
        with table.display():
            yield table
