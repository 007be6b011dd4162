import errno
import fcntl
import subprocess
import sys

import pytest

from convjax.io.lock import LOCK, FolderLock, LockedError, holds_files

HOLD = """
import sys, time
from convjax.io.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    """Another process that writes into the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_one_process_at_a_time_and_none_after_a_kill(tmp_path):
    with hold(tmp_path) as other:
        with pytest.raises(LockedError, match=r"another process is writing into .*Wait until it"):
            FolderLock(tmp_path).__enter__()
        other.kill()  # SIGKILL on POSIX: nothing of ours runs in it any more
        other.wait()
        assert (tmp_path / LOCK).exists()
        with FolderLock(tmp_path):
            pass


def test_nothing_is_left_and_a_lock_is_no_file(tmp_path):
    assert not holds_files(tmp_path)
    with FolderLock(tmp_path):
        assert (tmp_path / LOCK).exists()
        assert not holds_files(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").touch()
    assert holds_files(tmp_path)
    assert not holds_files(tmp_path / "a")
    assert not holds_files(tmp_path / "missing")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="missing"), FolderLock(tmp_path / "missing" / "inner"):
        pass


def test_file_systems_without_locks_are_no_hindrance(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with FolderLock(tmp_path), FolderLock(tmp_path):
        pass
