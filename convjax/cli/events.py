"""`convjax events`: writes event files of runs, for TensorBoard."""

import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from convjax.terminal.command import mistakes_reported


def run_events(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of trainings, finished or not: each has a config.json, such as "
            "…/runs/SETTING/seed-N.",
        ),
    ],
) -> None:
    """Writes the saved data of runs as TensorBoard's event files, in RUN/tensorboard."""
    from convjax.runs.run import load_run
    from convjax.runs.tensorboard import write_events
    from convjax.terminal.console import console, print_line

    with mistakes_reported(
        "stopped; the folders written so far are complete.",
        elsewhere="name a copy of the run in another place",
    ):
        for run in runs:
            load_run(run, partial=True)  # reports a wrong folder before any file is written
        folders = [write_events(run) for run in runs]
    # TensorBoard is in no extra: event files may be viewed on another machine.
    missing = "" if find_spec("tensorboard") else "pip install tensorboard, then: "
    shown = console()
    for folder in folders:
        print_line(shown, f"event files: {folder}")
    command = f"{missing}tensorboard --logdir {shlex.quote(str(common_folder(folders)))}"
    print_line(shown, f"next: {command}")


def common_folder(folders: list[Path]) -> Path:
    """Returns the innermost folder that contains all of the folders, or the only one."""
    if len(set(folders)) == 1:
        return folders[0]
    common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    here = Path.cwd()
    return common.relative_to(here) if common.is_relative_to(here) else common
