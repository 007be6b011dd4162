"""Checks of the options that `run` and `train` share: where results go, and what is printed."""

from datetime import datetime
from pathlib import Path

from convjax.io.lock import holds_files


def results_folder(out: Path | None) -> Path:
    """Returns the folder for results: the given one, or a new one named by date and time."""
    return out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")


def check_new(out: Path) -> None:
    """Raises ValueError if the folder for results is a file, or holds files."""
    if out.is_file() or holds_files(out):
        raise ValueError(
            f"--out must be a new or empty folder, got {out}, which is a file or holds files. "
            "Choose another, remove it, or resume the run in it with --resume."
        )


def check_output(quiet: bool, json: bool) -> None:
    """Raises ValueError if both ways of printing less are given."""
    if quiet and json:
        raise ValueError("--quiet and --json exclude each other. Choose one.")
