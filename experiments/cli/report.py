"""`python -m experiments report`: a run, or several side by side, on a page to be sent around."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.terminal.options import mistakes_reported, prepare_file

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
            help="New file for the page. Default: report.html in the folder of the one run, which "
            "is replaced, or comparison.html here."
        ),
    ] = None,
) -> None:
    """Writes a page of trainings: curves, layers, diagnosis, mistakes; one file, no network."""
    from convjax.io.atomic import atomic_write
    from convjax.report.build import comparison, report, write_report
    from experiments.terminal.console import console

    with mistakes_reported("stopped; nothing was written."):
        if out is None and len(runs) == 1:
            out = write_report(runs[0])
        else:
            out = out or COMPARISON
            prepare_file(out)
            text = report(runs[0]) if len(runs) == 1 else comparison(runs)
            with atomic_write(out) as file:
                file.write(text.encode())
    console().print(f"the page: {out}", highlight=False, soft_wrap=True)
