"""Rules that `run` and `train` have in common: where results go, and how much is said."""

from datetime import datetime
from pathlib import Path

from convjax.io.lock import holds_files


def results_folder(out: Path | None) -> Path:
    """Returns the folder for results: the one given, or one named by date and time."""
    return out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")


def check_new(out: Path) -> None:
    """Raises ValueError if the folder for results is a file, or holds files."""
    if out.is_file() or holds_files(out):
        raise ValueError(
            f"--out must be a new or empty folder, got {out}, which is a file or holds files. "
            "Choose another, remove it, or go on in it with --resume."
        )


def check_manner(quiet: bool, json: bool) -> None:
    """Raises ValueError for two ways of saying little."""
    if quiet and json:
        raise ValueError("--quiet and --json exclude each other: choose one.")
