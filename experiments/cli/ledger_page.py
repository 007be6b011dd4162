"""The page of the ledger: every claim with its picture, figures, rule and verdict, in one file."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convjax.io.atomic import atomic_write
from convjax.report import html
from convjax.report.table import MISSING, Table
from experiments.cli import registry
from experiments.cli.ledger import MOST_FIGURES, STYLE, figures, short_table, summary
from experiments.harness.claim import Result
from experiments.harness.saved_results import LEFT_OUT


def write_page(results: Sequence[Result], plots: Path, out: Path) -> None:
    """Writes the page of results, in place of an earlier one.

    Args:
      results: of the claims.
      plots: folder with the pictures that the results name; a missing one is not shown.
      out: file of the page.

    Raises:
      ImportError: if jinja2 is not installed.
      OSError: if the file cannot be written.
    """
    text = page(results, plots)
    with atomic_write(out) as file:
        file.write(text.encode())


def page(results: Sequence[Result], plots: Path) -> str:
    """Returns the page in HTML; the arguments are those of `write_page`."""
    statements = {claim.id: claim.statement for _, claim in registry.all_claims()}
    headlines = {row[0]: row[2] for row in short_table(list(results)).rows}
    claims = [
        {
            "id": result.id,
            "group": "left out" if result.reason.startswith(LEFT_OUT) else result.verdict,
            "statement": statements.get(result.id, result.id),
            "published": result.published,
            "figures": _table(result).html() if result.measured else "",
            "result": result,
            "headline": headlines[result.id],
            "seeds": len(result.seeds),
            "seconds": f"{result.seconds:.1f}",
            "pictures": [
                {"name": name, "source": _source(plots / f"{name}.png")}
                for name in result.pictures
                if (plots / f"{name}.png").exists()
            ],
        }
        for result in results
    ]
    groups: dict[str, list[Any]] = {name: [] for name in (*STYLE, "left out")}
    for claim in claims:
        groups[str(claim["group"])].append(claim)
    return html.render(
        "experiments.cli",
        "ledger.html",
        summary=summary(list(results)),
        groups={name: of for name, of in groups.items() if of},
    )


def _table(result: Result) -> Table:
    """Returns the measured figures beside the published ones of the same names."""
    published, measured = figures(result)
    head: tuple[str, ...] = ("figure", "measured")
    rows = [[name, text] for name, text in measured.items()]
    if result.published.figures:
        head = ("figure", "published", "measured")
        names = dict.fromkeys([*published, *measured])
        rows = [[n, published.get(n, MISSING), measured.get(n, MISSING)] for n in names]
    shown = range(MOST_FIGURES) if len(rows) > MOST_FIGURES else None
    return Table(
        "Mean ± standard deviation over the seeds", head, rows, shown=shown, what="figures"
    )


def _source(file: Path) -> str:
    """Returns a picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
