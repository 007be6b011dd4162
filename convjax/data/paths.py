"""Paths as users give them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ~ for the home folder written out; as it is where that is nobody's home."""
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:  # what is looked for there is then not found, and the path is named
        return path


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a folder; not where the path is longer than one can be."""
    try:
        return expanded(path).is_dir()
    except OSError:
        return False
