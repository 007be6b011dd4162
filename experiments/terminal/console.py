"""What a person sees: a table per epoch, a progress bar, the ledger, and messages of errors."""

import time
from collections.abc import Mapping
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
from rich.table import Table
from rich.text import Text

from experiments.harness.claim import Result
from experiments.harness.observer import Observer
from experiments.harness.rules import Verdict, mean, std
from experiments.harness.setting import Setting


def console() -> Console:
    """Returns a console; in a file or a pipe it is wide enough for the ledger."""
    found = Console()
    return found if found.is_terminal else Console(width=130)


EPOCH_HEADER = (
    f"{'epoch':>5}  {'train_loss':>10}  {'valid_loss':>10}  {'accuracy':>8}  {'time':>7}  "
    f"{'compile':>7}"
)


class TimeLeft(TimeRemainingColumn):
    """The time that a training's speed leaves, or for all claims the time until a moment."""

    def render(self, task: Task) -> Text:
        """Returns "0:12:34"."""
        until = task.fields.get("until")
        if until is None:
            return super().render(task)
        seconds = max(0, round(until - time.monotonic()))
        return Text(f"about {timedelta(seconds=seconds)}", style="progress.remaining")


class ConsoleObserver(Observer):
    """Prints fastai's table of a watched training, a line for others, and the time left.

    On a terminal there are bars below: one for the claims, one for the training. Elsewhere they
    would be noise in a log, and a line at the beginning of a claim takes their place.
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

    def on_screen(self) -> Progress:
        """Returns the bars."""
        return self.progress

    def kept(self, claims: int) -> None:
        """Says so."""
        are = "claim is" if claims == 1 else "claims are"
        self.console.print(f"{claims} {are} measured already.", highlight=False)

    def claim(self, id: str, number: int, total: int, seconds_left: float | None) -> None:
        """Says which claim begins, and how long all that remain take."""
        if self._claims is None:
            self._claims = self.progress.add_task("claims", total=total)
        until = None if seconds_left is None else time.monotonic() + seconds_left
        self.progress.update(self._claims, completed=number - 1, until=until)
        left = (
            "" if seconds_left is None else f", about {timedelta(seconds=round(seconds_left))} left"
        )
        self.console.print(f"\n[bold]claim {number} of {total}: {id}[/bold]{left}", highlight=False)

    def network(self, summary: str) -> None:
        """Prints the summary of a network."""
        self.console.print(f"\n{summary}", highlight=False, soft_wrap=True)

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """Prints the head of the table."""
        self._title, self._watched = f"{setting.slug}, seed {seed}", watched
        self._training = self.progress.add_task(self._title, total=steps)
        if watched:
            self.console.print(f"\n[bold]{self._title}[/bold]: {steps} steps", highlight=False)
            self.console.print(EPOCH_HEADER, highlight=False)

    def steps(self, done: int) -> None:
        """Moves the bar."""
        if self._training is not None:
            self.progress.advance(self._training, done)

    def scored(self, metrics: dict[str, Any]) -> None:
        """Prints one row of the table."""
        if self._watched:
            self.console.print(
                f"{metrics['epoch']:>5}  {metrics['train_loss']:>10.4f}  "
                f"{metrics['valid_loss']:>10.4f}  {metrics['accuracy']:>8.4f}  "
                f"{metrics['seconds']:>6.1f}s  {metrics['compile_seconds']:>6.1f}s",
                highlight=False,
            )

    def measuring(self, what: str) -> None:
        """Prints a line."""
        self.console.print(f"  {what}", highlight=False)

    def told(self, text: str) -> None:
        """Prints it, broken where the terminal ends."""
        self.console.print(f"\n{text}", highlight=False)

    def trained(self, metrics: list[dict[str, Any]]) -> None:
        """Takes the bar away; prints the line of a training for comparisons."""
        if self._training is not None:
            self.progress.remove_task(self._training)
            self._training = None
        if not self._watched:
            seconds = sum(row["seconds"] + row["compile_seconds"] for row in metrics)
            self.console.print(
                f"  {self._title}: accuracy {metrics[-1]['accuracy']:.4f}, {seconds:.1f} s",
                highlight=False,
            )


# Metrics that are 1 or 0 per seed: shown as a count.
YES_OR_NO = {"failed"}

# A comparison has up to forty figures; results.json holds them all, its reason those that decide.
MOST_FIGURES = 8

STYLE: dict[Verdict, str] = {"reproduced": "green", "refuted": "red", "undecided": "yellow"}


def ledger_table(results: list[Result], data: str, seeds: int) -> Table:
    """Returns the ledger as a table: claim, published, measured, verdict, time."""
    table = Table(
        title=f"The chapter's claims on {data}, {seeds} seed{'s' if seeds > 1 else ''}",
        show_lines=True,
    )
    for heading in ("claim", "published", "measured (mean ± std)", "verdict", "time"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("claim", "time"))
    for result in results:
        verdict = f"[{STYLE[result.verdict]}]{result.verdict}[/]"
        if result.verdict != result.expected:
            verdict += f"\n[bold red]expected {result.expected}[/]"
        table.add_row(
            result.id,
            *_figures(result),
            f"{verdict}\n{result.reason}",
            f"{result.seconds:.1f} s",
        )
    return table


def markdown_ledger(results: list[Result]) -> str:
    """Returns the ledger as a Markdown table."""
    lines = ["| claim | published | measured | verdict | time |", "|---|---|---|---|---|"]
    for result in results:
        published, measured = _figures(result)
        cells = (
            result.id,
            published.replace("\n", "<br>"),
            measured.replace("\n", "<br>"),
            f"**{result.verdict}**: {result.reason}",
            f"{result.seconds:.1f} s",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _summary(results)])


def _summary(results: list[Result]) -> str:
    """Returns how many there are of each verdict, on what, with how many seeds, in which time."""
    verdicts = [result.verdict for result in results]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in STYLE]
    kinds = sorted({(result.data, len(result.seeds)) for result in results})
    data = [f"{name}, {seeds} seed{'s' * (seeds > 1)}" for name, seeds in kinds]
    minutes = sum(result.seconds for result in results) / 60
    return "; ".join([", ".join(counts), *data, f"{minutes:.0f} minutes"])


def claims_table(claims: list[tuple[str, Any]]) -> Table:
    """Returns the list of claims: id, file, statement."""
    table = Table(show_header=True)
    for heading in ("claim", "file", "what the chapter says"):
        table.add_column(heading, overflow="fold")
    for file, claim in claims:
        table.add_row(claim.id, f"experiments/{file}.py", claim.statement)
    return table


def _figures(result: Result) -> tuple[str, str]:
    """Returns the published and the measured figures, a line each."""
    return (
        _lines({name: _figure(value) for name, value in result.published.as_json().items()}),
        _lines({name: _spread(name, values) for name, values in result.measured.items()}),
    )


def _lines(figures: Mapping[str, str]) -> str:
    lines = [f"{name} {figure}" for name, figure in figures.items()]
    more = len(lines) - MOST_FIGURES
    return "\n".join(lines[:MOST_FIGURES] + ([f"and {more} more"] if more > 0 else []))


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"


def _spread(name: str, values: Any) -> str:
    if name in YES_OR_NO and len(values) > 1:
        return f"{sum(values):.0f} of {len(values)}"
    middle = mean(values)
    # Four digits show the accuracy of 10,000 images; smaller figures are shown by their size.
    form = ".1e" if 0 < abs(middle) < 1e-3 else ".4f"
    if len(values) > 1:
        return f"{middle:{form}} ± {std(values):{form}}"
    return f"{middle:.4f}".rstrip("0").rstrip(".") if form == ".4f" else f"{middle:{form}}"
