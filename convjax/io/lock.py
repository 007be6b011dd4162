"""A folder that one process writes into."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from convjax.io.atomic import partial_files

# Hidden. It goes with the lock, but stays where a process was killed, and locks nothing then.
LOCK = ".lock"


# What file systems without locks answer.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class LockedError(ValueError):
    """Another process writes into the folder."""


class FolderLock:  # read as a phrase: with locked(folder)
    """Keeps other processes of convjax from writing into a folder while the block lasts.

    The operating system holds the lock, and lets it go with the process, however that ends. Some
    network file systems have no such locks; then this is no protection, and no hindrance.

    Raises:
      LockedError: if another process holds it.
      OSError: if nothing can be written there.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._folder = Path(folder)
        # A soft lock, which is but a file, would outlive a process that was killed.
        self._lock = FileLock(self._folder / LOCK, fallback_to_soft=False)

    def __enter__(self) -> None:
        if not self._folder.is_dir():  # which filelock would make
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
        # While it is held: filelock looks whether the file that it has locked is still there.
        # Windows does not remove an open file.
        with suppress(OSError):
            (self._folder / LOCK).unlink(missing_ok=True)
        self._lock.release()


def holds_files(folder: Path) -> bool:
    """Tells whether a folder has anything but a lock and what a killed process had half-written."""
    if not folder.is_dir():
        return False
    passing = {folder / LOCK, *partial_files(folder)}
    return any(path not in passing for path in folder.iterdir())
