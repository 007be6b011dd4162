"""A lock for a folder that only one process may write."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from convjax.io.atomic import partial_files

# The file is removed with the lock. If a process is killed it remains, but locks nothing.
LOCK = ".lock"

# Error numbers of file systems without locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class LockedError(ValueError):
    """Another process is writing into the folder."""


class FolderLock:
    """Keeps other processes of convjax from writing into a folder while the block lasts.

    The operating system releases the lock when the process ends, even if it is killed. Some
    network file systems have no such locks; there, this has no effect.

    Raises:
      LockedError: if another process holds it.
      OSError: if the folder does not exist or cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._folder = Path(folder)
        # A soft lock is only a file, and would remain after a process was killed.
        self._lock = FileLock(self._folder / LOCK, fallback_to_soft=False)

    def __enter__(self) -> None:
        if not self._folder.is_dir():  # filelock would make it
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(self._folder))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise LockedError(
                f"another process is writing into {self._folder}. Wait until it ends, or choose "
                "another folder."
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def __exit__(self, *error: object) -> None:
        if not self._lock.is_locked:
            return
        # Removed while the lock is held: filelock notices if the locked file was replaced. Windows
        # does not remove an open file.
        with suppress(OSError):
            (self._folder / LOCK).unlink(missing_ok=True)
        self._lock.release()


def holds_files(folder: Path) -> bool:
    """Returns whether a folder has any file but a lock and unfinished files of killed processes."""
    if not folder.is_dir():
        return False
    temporary = {folder / LOCK, *partial_files(folder)}
    return any(path not in temporary for path in folder.iterdir())
