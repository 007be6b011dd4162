"""A folder that one process writes into."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# Hidden, and left behind: a lock file that is removed lets two processes lock two files.
LOCK = ".lock"


class LockedError(ValueError):
    """Another process writes into the folder."""


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other processes of convjax from writing into a folder while the block lasts.

    The operating system holds the lock, and lets it go with the process, however that ends. Some
    network file systems have no such locks; then this is no protection, and no hindrance.

    Raises:
      LockedError: if another process holds it.
      OSError: if nothing can be written there.
    """
    # A soft lock, which is but a file, would outlive a process that was killed.
    lock = FileLock(Path(folder) / LOCK)
    try:
        lock.acquire(timeout=0)
    except NotImplementedError:
        yield
        return
    except Timeout as error:
        raise LockedError(
            f"another process is writing into {folder}. Wait until it ends, or choose another "
            "folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def holds_files(folder: Path) -> bool:
    """Tells whether a folder has anything but a lock."""
    return folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())
