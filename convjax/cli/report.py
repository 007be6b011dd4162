"""`convjax report`: one run, or several side by side, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported, prepare_file

COMPARISON = Path("comparison.html")


def run_report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of trainings: …/runs/SETTING/seed-N. Several are compared.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="New file for the page. Default: for one run, report.html in its folder, which is "
            "replaced; for several, comparison.html here."
        ),
    ] = None,
) -> None:
    """Writes a page about trainings: curves, layers, diagnosis, mistakes; one offline file."""
    from convjax.io.atomic import atomic_write
    from convjax.report.build import comparison, report, write_report
    from convjax.terminal.console import console, print_line

    with mistakes_reported(NOTHING_WRITTEN):
        if out is None and len(runs) == 1:
            out = write_report(runs[0])
        else:
            out = out or COMPARISON
            prepare_file(out)
            text = report(runs[0]) if len(runs) == 1 else comparison(runs)
            with atomic_write(out) as file:
                file.write(text.encode())
    print_line(console(), f"the page: {out}")
