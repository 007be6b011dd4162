"""`convjax explore`: a page that traces the cells of a network back to the image."""

from pathlib import Path
from typing import Annotated

import typer

from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported, prepare_file
from convjax.terminal.options import DataDir, OutPage


def run_explore(
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a training of `run`, …/runs/SETTING/seed-N, with its weights."
        ),
    ] = None,
    spreadsheet: Annotated[
        Path | None, typer.Option(help="The chapter's conv-example.xlsx.")
    ] = None,
    data_dir: DataDir = None,
    out: OutPage = Path("explorer.html"),
) -> None:
    """Writes a page with a network's maps and, for each cell, the numbers it is computed from."""
    from convjax.cli.explorer_input import example, of_run, of_spreadsheet
    from convjax.explorer._page import page
    from convjax.io.atomic import atomic_write
    from convjax.terminal.console import console, print_line

    with mistakes_reported(NOTHING_WRITTEN):
        if run and spreadsheet:
            raise ValueError(
                "--run and --spreadsheet exclude each other. Choose one: each has its own network."
            )
        if data_dir and not run:
            raise ValueError(
                "--data-dir must be given with --run only: the example and the spreadsheet have "
                "their own images. Leave it out."
            )
        prepare_file(out)
        if run:
            explored = of_run(run, data_dir)
        else:
            explored = of_spreadsheet(spreadsheet) if spreadsheet else example()
        text = page(explored.title, explored.image, explored.layers, about=explored.about)
        with atomic_write(out) as file:
            file.write(text.encode())
    print_line(console(), f"the page: {out}")
