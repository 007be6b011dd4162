"""What a person sees: a table per epoch, a progress bar, the ledger, and messages of errors."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from experiments.lab import Observer
from experiments.ledger import Result, mean, std
from experiments.setting import Setting


def console() -> Console:
    """Returns a console; in a file or a pipe it is wide enough for the ledger."""
    found = Console()
    return found if found.is_terminal else Console(width=130)


EPOCH_HEADER = (
    f"{'epoch':>5}  {'train_loss':>10}  {'valid_loss':>10}  {'accuracy':>8}  {'time':>7}  "
    f"{'compile':>7}"
)


class ConsoleObserver(Observer):
    """Prints fastai's table of each training, with a bar below it on a terminal."""

    def __init__(self, console: Console):
        self.console = console
        # Without a terminal a bar would be noise in a log.
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def network(self, summary: str) -> None:
        """Prints the summary of a network."""
        self.console.print(f"\n{summary}", highlight=False, soft_wrap=True)

    def training(self, setting: Setting, seed: int, steps: int) -> None:
        """Prints the head of the table."""
        if self._task is not None:
            self.progress.remove_task(self._task)
        title = f"{setting.slug}, seed {seed}"
        self._task = self.progress.add_task(title, total=steps)
        self.console.print(f"\n[bold]{title}[/bold]: {steps} steps", highlight=False)
        self.console.print(EPOCH_HEADER, highlight=False)

    def steps(self, done: int) -> None:
        """Moves the bar."""
        if self._task is not None:
            self.progress.advance(self._task, done)

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Prints one row."""
        self.console.print(
            f"{metrics['epoch']:>5}  {metrics['train_loss']:>10.4f}  "
            f"{metrics['valid_loss']:>10.4f}  {metrics['accuracy']:>8.4f}  "
            f"{metrics['seconds']:>6.1f}s  {metrics['compile_seconds']:>6.1f}s",
            highlight=False,
        )


# Metrics that are 1 or 0 per seed: shown as a count.
YES_OR_NO = {"failed"}

STYLE = {"reproduced": "green", "refuted": "red", "undecided": "yellow"}


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
            result.claim.id,
            _lines({name: _figure(value) for name, value in result.claim.published.items()}),
            _lines({name: _spread(name, values) for name, values in result.measured.items()}),
            f"{verdict}\n{result.reason}",
            f"{result.seconds:.1f} s",
        )
    return table


def markdown_ledger(claims: list[dict[str, Any]]) -> str:
    """Returns the entries of results.json as a Markdown table."""
    lines = ["| claim | published | measured | verdict |", "|---|---|---|---|"]
    for entry in claims:
        published = {name: _figure(value) for name, value in entry["published"].items()}
        values = {name: found["values"] for name, found in entry["measured"].items()}
        measured = {name: _spread(name, numbers) for name, numbers in values.items()}
        cells = (
            entry["id"],
            _lines(published).replace("\n", "<br>"),
            _lines(measured).replace("\n", "<br>"),
            f"**{entry['verdict']}**: {entry['reason']}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def claims_table(claims: list[tuple[str, Any]]) -> Table:
    """Returns the list of claims: id, file, statement."""
    table = Table(show_header=True)
    for heading in ("claim", "file", "what the chapter says"):
        table.add_column(heading, overflow="fold")
    for file, claim in claims:
        table.add_row(claim.id, f"experiments/{file}.py", claim.statement)
    return table


def _lines(figures: Mapping[str, str]) -> str:
    return "\n".join(f"{name} {figure}" for name, figure in figures.items())


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _spread(name: str, values: Any) -> str:
    middle = f"{mean(values):.4f}".rstrip("0").rstrip(".") if mean(values) else "0"
    if abs(mean(values)) < 1e-3 and mean(values):
        middle = f"{mean(values):.1e}"
    if len(values) == 1:
        return middle
    if name in YES_OR_NO:
        return f"{sum(values):.0f} of {len(values)}"
    return f"{mean(values):.4f} ± {std(values):.4f}"
