"""Files that are written whole or not at all."""

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
    """Opens a file that takes the place of `path` when the block ends without an exception.

    A reader sees the old content or all of the new, also while another process writes and after a
    crash. What is half-written lies beside the file under a name of its own, and is removed but by
    a process that is killed: see `partial_files`.

    Raises:
      OSError: where the folder cannot be written or the disk is full.
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
        if error.filename == str(partial):  # a name that says nothing to whoever reads the message
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def partial_files(folder: Path) -> list[Path]:
    """Returns the half-written files in a folder, of processes that write or were killed."""
    found = (path for path in folder.glob(".*.partial") if _PARTIAL.fullmatch(path.name))
    return [path for path in found if path.is_file()]


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Saves a figure as a PNG file; folders above it are made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
