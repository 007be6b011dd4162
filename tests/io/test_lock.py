import errno
import fcntl
import os
import subprocess
import sys

import pytest

from convjax.io.lock import LOCK, FolderLock, LockedError, holds_files

HOLD = """
import sys, time
from convjax.io.lock import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    """Starts another process that locks the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.mark.slow
def test_folder_lock_is_exclusive_until_its_process_is_killed(tmp_path):
    with hold(tmp_path) as other:
        with pytest.raises(LockedError, match=r"another process is writing into .*Wait until it"):
            FolderLock(tmp_path).__enter__()
        other.kill()  # SIGKILL on POSIX: no cleanup runs
        other.wait()
        assert (tmp_path / LOCK).exists()
        with FolderLock(tmp_path):
            pass


def test_folder_lock_removes_its_file(tmp_path):
    assert not holds_files(tmp_path)
    with FolderLock(tmp_path):
        assert (tmp_path / LOCK).exists()
        assert not holds_files(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").touch()
    assert holds_files(tmp_path)
    assert not holds_files(tmp_path / "a")
    assert not holds_files(tmp_path / "missing")


def test_folder_lock_rejects_a_missing_folder(tmp_path):
    with pytest.raises(OSError, match="missing"), FolderLock(tmp_path / "missing" / "inner"):
        pass


def test_folder_lock_without_support_of_the_file_system(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with FolderLock(tmp_path), FolderLock(tmp_path):
        pass


@pytest.mark.parametrize("change", ["removed file", "replaced file"])
def test_folder_lock_survives_the_removal_of_its_file(tmp_path, change):
    with FolderLock(tmp_path) as lock:
        (tmp_path / LOCK).unlink()
        if change == "replaced file":
            (tmp_path / LOCK).touch()
        lock.check()  # no other process can lock the folder
        with pytest.raises(LockedError, match="another process is writing"):
            FolderLock(tmp_path).__enter__()
    assert (tmp_path / LOCK).exists() == (change == "replaced file")  # not ours
    with FolderLock(tmp_path):
        pass


def test_folder_lock_of_a_file_system_that_locks_no_folders(tmp_path, monkeypatch):
    """As NFS: the lock is that of the file, whose removal is noticed."""
    flock = fcntl.flock

    def of_files(descriptor, operation):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", of_files)
    with FolderLock(tmp_path) as lock:
        lock.check()
        with pytest.raises(LockedError, match="another process is writing"):
            FolderLock(tmp_path).__enter__()
        (tmp_path / LOCK).unlink()
        with pytest.raises(LockedError, match=r"\.lock was removed .* no other process .* resume"):
            lock.check()


@pytest.mark.parametrize("again", [False, True])
def test_folder_lock_check_notices_that_the_folder_is_gone(tmp_path, again):
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    with FolderLock(folder) as lock:
        lock.check()
        folder.rename(other)
        if again:  # another folder has the name now, with a lock of its own
            folder.mkdir()
        with pytest.raises(LockedError, match=f"{folder} was renamed to {other} while .* resume"):
            lock.check()
        if again:
            with FolderLock(folder):
                assert (folder / LOCK).exists()
            folder.rmdir()
        other.rename(folder)
        lock.check()
        (folder / LOCK).unlink()
        folder.rmdir()
        with pytest.raises(LockedError, match=f"{folder} was removed while .* Begin again"):
            lock.check()
    assert not folder.exists()
