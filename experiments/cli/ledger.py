"""The ledger of claims, for the terminal and in Markdown."""

import re
from collections.abc import Mapping
from dataclasses import replace
from textwrap import shorten
from typing import Any

from rich.markup import escape
from rich.table import Table as RichTable

from convjax.terminal.tables import TextTable
from experiments.harness.claim import Claim, Result
from experiments.harness.rules import SHORT, Verdict, mean, std
from experiments.harness.saved_results import LEFT_OUT

# Metrics that are 1 or 0 per seed: shown as a count.
YES_OR_NO = {"failed"}

# Figures per cell; a comparison has up to forty. results.json has all of them, and the reason of a
# verdict names those that decide.
MOST_FIGURES = 8

# The most characters of what the chapter publishes, in a table with one line per claim.
PUBLISHED = 23

# Where a clause ends, so that the text before it has a meaning of its own; the best ends first.
CLAUSES = (re.compile(r"; "), re.compile(r": |, | \("), re.compile(r" and "))

STYLE: dict[Verdict, str] = {"reproduced": "green", "refuted": "red", "undecided": "yellow"}


def closing_table(results: list[Result]) -> RichTable:
    """Returns the ledger for the terminal, one line of at most 100 characters per claim."""
    table = short_table(results)
    rows = [[escape(cell) for cell in row] for row in table.rows]
    for row, result in zip(rows, results, strict=True):
        row[-1] = f"[{STYLE[result.verdict]}]{result.verdict}[/]"
    return replace(table, rows=rows).rich(frame=False)


def remarks(results: list[Result], out: str) -> list[str]:
    """Returns the lines below the closing table: counts, departures, and what was left out.

    Args:
      results: of the run.
      out: the run's folder, as the command line takes it.
    """
    lines = [summary(results)]
    lines += [
        f"{result.id} departs: {result.verdict}, expected {result.expected}. {result.reason}"
        for result in results
        if result.verdict != result.expected
    ]
    left_out = [result.reason for result in results if result.reason.startswith(LEFT_OUT)]
    if left_out:
        lines.append(
            f"Left out were comparisons of dozens of trainings. To decide one, add --out {out} "
            "--resume:"
        )
        for reason in left_out:
            time, _, command = reason.removeprefix(LEFT_OUT).partition(": ")
            lines.append(f"  python -m experiments {command.strip('`'):<36} {time}")
    return lines


def markdown_ledger(results: list[Result]) -> str:
    """Returns the ledger in Markdown, with a summary below."""
    rows = [
        (
            result.id,
            *map(_lines, figures(result)),
            f"**{result.verdict}**: {result.reason}",
            f"{result.seconds:.1f} s",
        )
        for result in results
    ]
    table = TextTable(("claim", "published", "measured", "verdict", "time"), rows)
    return f"{table.markdown()}\n\n{summary(results)}"


def short_table(results: list[Result]) -> TextTable:
    """Returns the ledger with one line per claim: of 94 characters, without what separates them."""
    rows = [(result.id, *_headline(result), result.verdict) for result in results]
    return TextTable(("claim", "published", "measured", "verdict"), rows)


def claims_table(claims: list[tuple[str, Claim]]) -> RichTable:
    """Returns the list of claims: id, file, statement.

    Args:
      claims: each with the name of its file, without .py.
    """
    rows = [(claim.id, f"experiments/{file}.py", claim.statement) for file, claim in claims]
    return TextTable(("claim", "file", "statement"), rows).rich()


def summary(results: list[Result]) -> str:
    """Returns the number of each verdict, the data sets with their seeds, and the minutes."""
    verdicts = [result.verdict for result in results]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in STYLE]
    if left_out := sum(result.reason.startswith(LEFT_OUT) for result in results):
        counts[-1] += f" ({left_out} left out)"
    kinds = sorted({(result.data, len(result.seeds)) for result in results})
    data = [
        f"{name}, {' or '.join(str(seeds) for of, seeds in kinds if of == name)} seed"
        + "s" * (max(seeds for of, seeds in kinds if of == name) > 1)
        for name in dict.fromkeys(name for name, _ in kinds)
    ]
    minutes = round(sum(result.seconds for result in results) / 60)
    time = "1 minute" if minutes == 1 else f"{minutes} minutes"
    return "; ".join([", ".join(counts), *data, time])


def _headline(result: Result) -> tuple[str, str]:
    """Returns what the chapter publishes and what was measured, each in a few words.

    These are the last accuracy, if the chapter publishes one, and otherwise the first figure that
    it publishes and the short form of the reason.
    """
    of, name = result.published, ""
    shown = "a picture" if of.picture else "a question" if of.question else ""
    measured = result.short or result.reason
    if of.figures:
        scores = [figure for figure in of.figures if figure.startswith("accuracy")]
        name = scores[-1] if scores else next(iter(of.figures))
        figure = _figure(of.figures[name])
        shown = f"{name} {figure}" if len(f"{name} {figure}") <= PUBLISHED else figure
        if scores and name in result.measured:
            measured = f"{name} {_spread(name, result.measured[name])}"
    return first_clauses(shown, PUBLISHED), first_clauses(measured, SHORT)


def first_clauses(text: str, most: int) -> str:
    """Returns as many whole clauses from the beginning of a text as fit, or else whole words.

    Args:
      text: the text.
      most: characters to return.

    Examples:
      >>> from experiments.cli.ledger import first_clauses
      >>> first_clauses("turn at 0.248 of the steps; rate and momentum follow", 30)
      'turn at 0.248 of the steps'
      >>> first_clauses("one clause alone without an end", 20)
      'one clause alone…'
    """
    if len(text) <= most:
        return text
    for clause in CLAUSES:
        ends = [found.start() for found in clause.finditer(text) if found.start() <= most]
        if ends:
            return text[: ends[-1]]
    return shorten(text, most, placeholder="…")


def figures(result: Result) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the published and the measured figures by name, as text."""
    published = result.published.as_json()
    return (
        {name: _figure(value) for name, value in published.items()},
        {name: _spread(name, values) for name, values in result.measured.items()},
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
