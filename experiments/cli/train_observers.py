"""How `train` speaks: as a table on a console, as JSON, or hardly at all; and its event files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from convjax.io.json_files import nonfinite_to_null
from convjax.stats.record import Record
from convjax.train._fit import Callback
from experiments.harness.observer import Observer
from experiments.harness.setting import Setting
from experiments.terminal.console import ConsoleObserver, console


class TrainObserver(Observer):
    """Hears of one training and how it ends; this one keeps quiet."""

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """All has been written."""

    def stopped(self, step: int, again: str) -> None:
        """A signal stopped the training after so many steps; the command goes on with it."""


class QuietOutput(TrainObserver):
    """Prints the folder at the end, and how to go on."""

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """Prints the folder."""
        typer.echo(folder)

    def stopped(self, step: int, again: str) -> None:
        """Prints to stderr."""
        typer.echo(f"stopped after {step} steps, saved. Go on with: {again}", err=True)


class TableOutput(TrainObserver, ConsoleObserver):
    """Prints a row for each evaluation, and on a terminal a bar with the time left."""

    def restored(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """Prints the rows that were there, and moves the bar."""
        for row in metrics:
            self.scored(row)
        if steps == self._total:
            told = f"the training was finished, after {steps} steps; what is made of it follows"
        else:
            told = f"goes on after {steps} steps" if steps else "no checkpoint yet: begins anew"
        self.console.print(told, highlight=False)
        self.steps(steps)

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """Prints the head of the table."""
        self._total = steps
        super().training(setting, seed, steps, watched=watched)

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """Prints where all is."""
        self.console.print(f"the run: {folder}", highlight=False, soft_wrap=True)
        self.console.print(f"the page: {folder / 'report.html'}", highlight=False, soft_wrap=True)

    def stopped(self, step: int, again: str) -> None:
        """Prints to stderr, as the others do."""
        self.progress.stop()
        QuietOutput().stopped(step, again)


class JsonOutput(TrainObserver):
    """Prints an object per line: {"event": "started" | "restored" | "scored" | "finished" |
    "stopped", …}; numbers that are not finite are null."""

    def __init__(self, config: dict[str, Any]):
        self._config = config

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """Prints the configuration."""
        self._print("started", steps=steps, config=self._config)

    def restored(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """Prints from where it goes on."""
        self._print("restored", step=steps)

    def scored(self, metrics: dict[str, Any]) -> None:
        """Prints the metrics of an evaluation."""
        self._print("scored", **metrics)

    def finished(self, folder: Path, metrics: list[dict[str, Any]]) -> None:
        """Prints the folder and the last metrics."""
        page = folder / "report.html"
        self._print("finished", folder=str(folder), report=str(page), **metrics[-1])

    def stopped(self, step: int, again: str) -> None:
        """Prints the step and the command."""
        self._print("stopped", step=step, again=again)

    def _print(self, event: str, **fields: Any) -> None:
        line = {"event": event, **fields}
        typer.echo(json.dumps(nonfinite_to_null(line), ensure_ascii=False, allow_nan=False))


class EventOutput(Callback):
    """Writes TensorBoard's event files as the training goes.

    Args:
      folder: for the files.
    """

    def __init__(self, folder: Path):
        from convjax.runs.tensorboard import EventWriter

        self._open = lambda purge_step: EventWriter(folder, purge_step=purge_step)
        self._writer: Any = None

    def restored(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """Hides what was written beyond the checkpoint; all of it where there is none."""
        self._writer = self._open(steps)
        for row in metrics:
            if row["step"] == steps:  # which is hidden, too
                self._writer.add_metrics(row)

    def recorded(self, record: Record, first: int) -> None:
        """Writes the steps."""
        if self._writer is None:
            # A process that was killed before its first checkpoint may have been here.
            self._writer = self._open(first)
        self._writer.add_record(record, first)

    def scored(self, metrics: dict[str, Any]) -> None:
        """Writes an evaluation."""
        self._writer.add_metrics(metrics)

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()


class ObserverPair(Callback):
    """Tells two of a training."""

    def __init__(self, first: Callback, second: Callback):
        self._both = first, second

    def restored(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """Tells them."""
        for listener in self._both:
            listener.restored(steps, metrics)

    def steps(self, done: int) -> None:
        """Tells them."""
        for listener in self._both:
            listener.steps(done)

    def recorded(self, record: Record, first: int) -> None:
        """Tells them."""
        for listener in self._both:
            listener.recorded(record, first)

    def scored(self, metrics: dict[str, Any]) -> None:
        """Tells them."""
        for listener in self._both:
            listener.scored(metrics)


@contextmanager
def speaking(
    config: dict[str, Any], *, silent: bool, quiet: bool, json_lines: bool
) -> Iterator[TrainObserver]:
    """Yields who tells of a training; while the block lasts its bars are on the screen.

    Args:
      silent: not even the folder at the end; for processes beside the first.
    """
    if silent:
        yield TrainObserver()
    elif json_lines:
        yield JsonOutput(config)
    elif quiet:
        yield QuietOutput()
    else:
        table = TableOutput(console())
        with table.on_screen():
            yield table
