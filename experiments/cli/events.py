"""`python -m experiments events`: event files of runs, for TensorBoard."""

import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from experiments.terminal.options import mistakes_reported


def run_events(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of trainings, finished or not: those with a config.json, such as "
            "…/runs/SETTING/seed-N.",
        ),
    ],
) -> None:
    """Writes what runs have saved as TensorBoard's event files, into RUN/tensorboard."""
    from convjax.runs.run import load_run
    from convjax.runs.tensorboard import write_events
    from experiments.terminal.console import console

    with mistakes_reported(
        "stopped; folders that are there are whole.",
        elsewhere="name a copy of the run in another place",
    ):
        for run in runs:
            load_run(run, partial=True)  # a wrong folder shows before any is written
        folders = [write_events(run) for run in runs]
    # Here and not in an extra: who looks at event files has it, or looks at them elsewhere.
    missing = "" if find_spec("tensorboard") else "pip install tensorboard, then: "
    shown = console()
    for folder in folders:
        shown.print(f"event files: {folder}", highlight=False, soft_wrap=True)
    command = f"{missing}tensorboard --logdir {shlex.quote(str(above(folders)))}"
    shown.print(f"next: {command}", highlight=False, soft_wrap=True, markup=False)


def above(folders: list[Path]) -> Path:
    """Returns the folder below which TensorBoard finds all of these, and nothing if it is one."""
    if len(set(folders)) == 1:
        return folders[0]
    common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    here = Path.cwd()
    return common.relative_to(here) if common.is_relative_to(here) else common
