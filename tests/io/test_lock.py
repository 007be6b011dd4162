import errno
import fcntl
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
