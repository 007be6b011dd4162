"""The ledger of claims, for the terminal and in Markdown."""

from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any

from rich.table import Table as RichTable

from convjax.terminal.tables import TextTable
from experiments.harness.claim import Claim, Result
from experiments.harness.rules import Verdict, mean, std

# Metrics that are 1 or 0 per seed: shown as a count.
YES_OR_NO = {"failed"}

# Figures per cell; a comparison has up to forty. results.json has all of them, and the reason of a
# verdict names those that decide.
MOST_FIGURES = 8

STYLE: dict[Verdict, str] = {"reproduced": "green", "refuted": "red", "undecided": "yellow"}


def ledger_table(results: list[Result], data: str, seeds: int) -> RichTable:
    """Returns the ledger for the terminal: claim, published, measured, verdict, time."""

    def verdict(result: Result) -> str:
        text = f"[{STYLE[result.verdict]}]{result.verdict}[/]"
        if result.verdict != result.expected:
            text += f"\n[bold red]expected {result.expected}[/]"
        return f"{text}\n{result.reason}"

    table = _ledger(results, "measured (mean ± std)", verdict)
    table.title = f"Claims on {data}, {seeds} seed{'s' * (seeds > 1)}"
    return table.rich(lines=True, narrow=("claim", "time"))


def markdown_ledger(results: list[Result]) -> str:
    """Returns the ledger in Markdown, with a summary below."""
    table = _ledger(results, "measured", lambda result: f"**{result.verdict}**: {result.reason}")
    return f"{table.markdown()}\n\n{_summary(results)}"


def short_table(results: list[Result]) -> TextTable:
    """Returns the ledger with one line per claim, of less than 100 characters."""
    rows = [(result.id, *_headline(result), result.verdict) for result in results]
    return TextTable(("claim", "published", "measured", "verdict"), rows)


def claims_table(claims: list[tuple[str, Claim]]) -> RichTable:
    """Returns the list of claims: id, file, statement.

    Args:
      claims: each with the name of its file, without .py.
    """
    rows = [(claim.id, f"experiments/{file}.py", claim.statement) for file, claim in claims]
    return TextTable(("claim", "file", "statement"), rows).rich()


def _ledger(results: list[Result], measured: str, verdict: Callable[[Result], str]) -> TextTable:
    rows = [
        (result.id, *_figures(result), verdict(result), f"{result.seconds:.1f} s")
        for result in results
    ]
    return TextTable(("claim", "published", measured, "verdict", "time"), rows)


def _summary(results: list[Result]) -> str:
    """Returns the number of each verdict, the data sets with their seeds, and the minutes."""
    verdicts = [result.verdict for result in results]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in STYLE]
    kinds = sorted({(result.data, len(result.seeds)) for result in results})
    data = [f"{name}, {seeds} seed{'s' * (seeds > 1)}" for name, seeds in kinds]
    minutes = sum(result.seconds for result in results) / 60
    return "; ".join([", ".join(counts), *data, f"{minutes:.0f} minutes"])


def _headline(result: Result) -> tuple[str, str]:
    """Returns what the chapter publishes and what was measured, each in a few words.

    These are the accuracies, if the chapter publishes one, and otherwise the beginning of the
    reason of the verdict.
    """
    published = result.published.as_json()
    name = "accuracy" if "accuracy" in published else next(iter(published))
    shown = name if name in ("picture", "question") else f"{name} {_figure(published[name])}"
    if name == "accuracy":
        measured = f"accuracy {_spread(name, result.measured[name])}"
    else:
        measured = result.reason.partition("; ")[0]
    return shorten(shown, 24, placeholder="…"), shorten(measured, 48, placeholder="…")


def _figures(result: Result) -> tuple[str, str]:
    """Returns the published and the measured figures, one per line."""
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
