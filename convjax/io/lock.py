"""A lock for a folder that only one process may write."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from convjax.io.atomic import partial_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The file is removed with the lock. If a process is killed it remains, but locks nothing.
LOCK = ".lock"

# Error numbers of file systems without locks, or without locks of folders.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_NO_FOLDER_LOCKS = (*NO_LOCKS, errno.EBADF, errno.EINVAL, errno.EISDIR)


class LockedError(ValueError):
    """Another process is writing into the folder, or the folder is no longer the locked one."""


class FolderLock:
    """Keeps other processes of convjax from writing into a folder while the block lasts.

    The operating system releases the lock when the process ends, even if it is killed. Some
    network file systems have no such locks; there, this has no effect.

    Two things are locked: the folder itself, so that the lock survives the removal of its file, and
    a file in it, which works on Windows and on network file systems too.

    Raises:
      LockedError: if another process holds it.
      OSError: if the folder does not exist or cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._folder = Path(folder)
        # A soft lock is only a file, and would remain after a process was killed.
        self._lock = FileLock(self._folder / LOCK, fallback_to_soft=False)
        self._descriptor: int | None = None  # of the folder
        self._of_folder = False  # whether the folder itself is locked
        self._file: os.stat_result | None = None  # of the locked file

    def __enter__(self) -> "FolderLock":
        if not self._folder.is_dir():  # filelock would make it
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(self._folder))
        try:
            self._lock_folder()
            self._lock.acquire(timeout=0)
            self._file = os.stat(self._folder / LOCK)
        except (Timeout, BlockingIOError) as error:
            self.__exit__()
            raise LockedError(
                f"another process is writing into {self._folder}. Wait until it ends, or choose "
                "another folder."
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self.__exit__()
                raise
        return self

    def _lock_folder(self) -> None:
        if fcntl is None:
            return
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._of_folder = True
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in _NO_FOLDER_LOCKS:
                raise

    def check(self) -> None:
        """Checks that the folder is still the locked one; called before every writing.

        Raises:
          LockedError: if it was renamed, removed or replaced, or another process may lock it.
        """
        if self._descriptor is not None:
            opened = os.fstat(self._descriptor)
            if not leads_to(self._folder, opened):
                raise LockedError(self._gone(_path_of(self._descriptor), opened.st_nlink == 0))
        if not self._of_folder and self._file and not leads_to(self._folder / LOCK, self._file):
            raise LockedError(
                f"{self._folder / LOCK} was removed while this process wrote into the folder, so "
                "that another may write there, too. What was saved before is complete. Check that "
                "no other process writes there, and resume."
            )

    def _gone(self, now: Path | None, removed: bool) -> str:
        if removed:
            return (
                f"the folder {self._folder} was removed while this process wrote into it, and what "
                "was saved in it is lost. Begin again, in this or another folder."
            )
        where = f"renamed to {now}" if now else "renamed"
        return (
            f"the folder {self._folder} was {where} while this process wrote into it. What was "
            "saved before is complete there. Rename it back, or use its new name, and resume."
        )

    def __exit__(self, *error: object) -> None:
        if self._lock.is_locked:
            # Removed while the lock is held: filelock notices if the locked file was replaced.
            # Windows does not remove an open file. The path may lead to another file by now.
            with suppress(OSError):
                if leads_to(self._folder / LOCK, self._file):
                    (self._folder / LOCK).unlink(missing_ok=True)
            self._lock.release()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor, self._of_folder = None, False


def leads_to(path: Path, found: os.stat_result | None) -> bool:
    """Returns whether a path leads to a file or folder."""
    try:
        return found is not None and os.path.samestat(os.stat(path), found)
    except OSError:
        return False


def _path_of(descriptor: int) -> Path | None:
    """Returns where an open folder is now; None if the system does not say, as Linux does."""
    with suppress(OSError):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return path if leads_to(path, os.fstat(descriptor)) else None
    return None


def holds_files(folder: Path) -> bool:
    """Returns whether a folder has any file but a lock and unfinished files of killed processes."""
    if not folder.is_dir():
        return False
    temporary = {folder / LOCK, *partial_files(folder)}
    return any(path not in temporary for path in folder.iterdir())
