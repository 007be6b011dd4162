"""Files that are written completely or not at all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PARTIAL = re.compile(r"\..+\.[0-9]+\.partial")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file that replaces `path` when the block ends without an exception.

    A reader sees the old content or all of the new, even while another process writes and after a
    crash. The unfinished file lies beside it under another name, and is removed unless the process
    is killed: see `partial_files`.

    Yields:
      The open file.

    Raises:
      OSError: if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.filename == str(partial):  # the caller does not know this name
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def partial_files(folder: Path) -> list[Path]:
    """Returns the unfinished files in a folder, of processes that are writing or were killed."""
    found = (path for path in folder.glob(".*.partial") if _PARTIAL.fullmatch(path.name))
    return [path for path in found if path.is_file()]


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Saves a figure as a PNG file; makes the folders above it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
