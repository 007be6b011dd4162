"""The console during a training: a row per evaluation, and a progress bar with the time left."""

import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from convjax.chapter.observer import Observer
from convjax.chapter.setting import Setting

EPOCH_HEADER = (
    f"{'epoch':>5}  {'train_loss':>10}  {'valid_loss':>10}  {'accuracy':>8}  {'time':>7}  "
    f"{'compile':>7}"
)


class TimeLeft(TimeRemainingColumn):
    """The time left: of a training from its speed, of all claims until a given moment."""

    def render(self, task: Task) -> Text:
        """Returns a text such as "0:12:34"."""
        until = task.fields.get("until")
        if until is None:
            return super().render(task)
        seconds = max(0, round(until - time.monotonic()))
        return Text(f"about {timedelta(seconds=seconds)}", style="progress.remaining")


class ConsoleObserver(Observer):
    """Prints fastai's table of each watched training, one line for each other, and the time left.

    On a terminal, a bar for the claims and one for the training stand below. In a log there are no
    bars; the line at the beginning of a claim gives the time left.
    """

    def __init__(self, console: Console):
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeLeft(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._claims: TaskID | None = None
        self._training: TaskID | None = None
        self._title, self._watched = "", True

    def display(self) -> Progress:
        """Returns the progress bars, a context."""
        return self.progress

    def resumed(self, claims: int) -> None:
        """Prints the number of claims whose figures are kept."""
        are = "claim is" if claims == 1 else "claims are"
        self.console.print(f"{claims} {are} already measured.", highlight=False)

    def claim(self, id: str, number: int, total: int, seconds_left: float | None) -> None:
        """Prints which claim begins, and the time left for all that remain."""
        if self._claims is None:
            self._claims = self.progress.add_task("claims", total=total)
        until = None if seconds_left is None else time.monotonic() + seconds_left
        self.progress.update(self._claims, completed=number - 1, until=until)
        left = (
            "" if seconds_left is None else f", about {timedelta(seconds=round(seconds_left))} left"
        )
        self.console.print(f"\n[bold]claim {number} of {total}: {id}[/bold]{left}", highlight=False)

    def judged(self, id: str, verdict: str, reason: str) -> None:
        """Prints the verdict with its reason."""
        self.console.print(
            Text.assemble((f"{id} is {verdict}", "bold"), f": {reason}"), highlight=False
        )

    def network(self, summary: str) -> None:
        """Prints the summary of the network."""
        self.console.print(f"\n{summary}", highlight=False, soft_wrap=True)

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """Adds a bar; prints the title and the headings of a watched training."""
        self._title, self._watched = f"{setting.slug}, seed {seed}", watched
        self._training = self.progress.add_task(self._title, total=steps)
        if watched:
            self.console.print(f"\n[bold]{self._title}[/bold]: {steps} steps", highlight=False)
            self.console.print(EPOCH_HEADER, highlight=False)

    def on_steps(self, steps: int) -> None:
        """Advances the bar."""
        if self._training is not None:
            self.progress.advance(self._training, steps)

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        """Prints one row of the table."""
        if self._watched:
            self.console.print(
                f"{metrics['epoch']:>5}  {metrics['train_loss']:>10.4f}  "
                f"{metrics['valid_loss']:>10.4f}  {metrics['accuracy']:>8.4f}  "
                f"{metrics['seconds']:>6.1f}s  {metrics['compile_seconds']:>6.1f}s",
                highlight=False,
            )

    def measuring(self, what: str) -> None:
        """Prints what is being measured."""
        self.console.print(f"  {what}", highlight=False)

    def message(self, text: str) -> None:
        """Prints the message, wrapped to the width of the terminal."""
        self.console.print(f"\n{text}", highlight=False)

    def trained(self, metrics: list[dict[str, Any]]) -> None:
        """Removes the bar; prints the line of a training that is not watched."""
        if self._training is not None:
            self.progress.remove_task(self._training)
            self._training = None
        if not self._watched:
            seconds = sum(row["seconds"] + row["compile_seconds"] for row in metrics)
            self.console.print(
                f"  {self._title}: accuracy {metrics[-1]['accuracy']:.4f}, {seconds:.1f} s",
                highlight=False,
            )
