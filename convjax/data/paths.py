"""Paths as users write them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with ~ replaced by the home folder; unchanged if that user does not exist."""
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:  # the path is then not found, and the message names it
        return path


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Returns whether a folder exists; False for a path longer than the system allows."""
    try:
        return expanded(path).is_dir()
    except OSError:
        return False
