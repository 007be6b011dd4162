import dataclasses
import io
import json
import logging
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convjax.data import DataError
from convjax.data.cache import DamagedCacheError, cache_folder, cached, read, write

from .conftest import assert_same, small_dataset


class Builder:
    """Builds the small data set, and counts how often."""

    def __init__(self, seed=0):
        self.seed, self.calls = seed, 0

    def __call__(self):
        self.calls += 1
        return small_dataset(seed=self.seed)


def get(folder, build, *, fingerprint="f", required=False):
    return cached("small", fingerprint, build, cache_dir=folder, required=required)


def test_cache_folder_is_argument_then_environment_then_user_cache(tmp_path, monkeypatch):
    assert cache_folder(tmp_path / "a") == tmp_path / "a"
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b"
    assert cache_folder(tmp_path / "a") == tmp_path / "a"
    assert cache_folder("~/c") == Path.home() / "c"
    monkeypatch.delenv("CONVJAX_CACHE_DIR")
    assert cache_folder() == Path(platformdirs.user_cache_dir("convjax", appauthor=False))


def test_cached_builds_once(tmp_path):
    build = Builder()
    first, second = get(tmp_path, build), get(tmp_path, build)
    assert build.calls == 1
    assert_same(first, second)
    assert {p.name for p in tmp_path.iterdir()} <= {"small.npz", "small.lock"}


def test_cached_replaces_a_stale_entry(tmp_path):
    get(tmp_path, Builder(0))
    build = Builder(1)
    assert_same(get(tmp_path, build, fingerprint="g"), small_dataset(seed=1))
    assert_same(get(tmp_path, build, fingerprint="g"), small_dataset(seed=1))
    assert build.calls == 1
    assert read(tmp_path / "small.npz", "f") is None


def test_read_takes_another_format_version_as_stale(tmp_path, caplog):
    path = tmp_path / "small.npz"
    write(path, "f", small_dataset())
    with np.load(path) as arrays:
        np.savez(path, **(dict(arrays) | {"format": 99}))
    assert read(path, "f") is None
    get(tmp_path, Builder())
    assert read(path, "f") is not None
    assert not caplog.records


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_read_never_returns_damaged_data(tmp_path, data):
    path = tmp_path / "small.npz"
    write(path, "f", small_dataset())
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["flip", "truncate", "append", "insert"]))
    if how == "flip":
        content[position] ^= data.draw(st.integers(1, 255))
    elif how == "truncate":
        del content[position:]
    elif how == "append":
        content += b"\0"
    else:
        content[position:position] = b"\n"
    path.write_bytes(content)
    try:
        found = read(path, "f")
    except DamagedCacheError:
        return
    if found is not None:  # only bytes without meaning were changed, such as times in the archive
        assert_same(found, small_dataset())


def archive(**changed):
    """Returns an entry with other arrays; None removes one."""
    images, labels = np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int32)
    arrays = {
        "format": 2,
        "header": json.dumps({"fingerprint": "f", "name": "n", "class_names": ["a"]}),
        "train.images": images,
        "train.labels": labels,
        "test.images": images,
        "test.labels": labels,
    }
    file = io.BytesIO()
    np.savez(file, **{k: v for k, v in (arrays | changed).items() if v is not None})
    return file.getvalue()


def compressed():
    """Returns a small file that unfolds to 64 MiB."""
    file = io.BytesIO()
    np.savez_compressed(file, format=2, header="{}", x=np.zeros(1 << 26, np.uint8))
    return file.getvalue()


def test_read_archive_of_the_tests(tmp_path):
    (tmp_path / "a.npz").write_bytes(archive())
    assert read(tmp_path / "a.npz", "f").class_names == ("a",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"convjax-dataset-1 0\n{}\n",  # a cache of the first format
        archive()[:-40],
        archive(format=None),
        archive(format="two"),
        archive(header=None),
        archive(header="[" * 100_000),
        archive(header="[]"),
        archive(header="{}"),
        archive(header=json.dumps({"fingerprint": "f", "name": 1, "class_names": ["a"]})),
        archive(header=json.dumps({"fingerprint": "f", "name": "n", "class_names": []})),
        archive(**{"train.images": None}),
        archive(**{"train.images": np.zeros((2, 2, 2, 1), np.uint8)}),
        archive(**{"train.images": np.zeros((1, 2, 2, 1))}),
        archive(**{"train.labels": np.array([3], np.int32)}),
        archive(**{"train.labels": np.array([object()])}),
        compressed(),
        b"\x80\x04cos\nsystem\n",
    ],
)
def test_cached_rebuilds_a_damaged_entry_in_bounded_memory(tmp_path, caplog, content):
    path = tmp_path / "small.npz"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DamagedCacheError, match=r"small\.npz is damaged or unreadable"):
        read(path, "f")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    build = Builder()
    with caplog.at_level(logging.WARNING):
        assert_same(get(tmp_path, build), small_dataset())
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "Building it again" in caplog.text
    assert_same(get(tmp_path, build), small_dataset())
    assert build.calls == 1


def test_cached_without_a_writable_folder(tmp_path):
    # A file in place of the folder, because file permissions do not restrict root.
    blocked = tmp_path / "file"
    blocked.touch()
    build = Builder()
    with pytest.raises(DataError, match=r"cache folder .*file cannot be written: .*cache_dir or"):
        get(blocked, build, required=True)
    assert build.calls == 0
    with pytest.warns(UserWarning, match=r"cannot be written: .* Continuing without a cache"):
        assert_same(get(blocked, build), small_dataset())


def test_cached_reads_a_folder_that_became_read_only(tmp_path, monkeypatch):
    get(tmp_path, Builder())

    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("filelock.FileLock", refuse)
    build = Builder()
    assert_same(get(tmp_path, build, required=True), small_dataset())
    assert build.calls == 0


def test_cached_on_a_full_disk_returns_the_data_and_leaves_no_file(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.warns(UserWarning, match=r"small\.npz could not be written: .*No space left"):
        assert_same(get(tmp_path, Builder(), required=True), small_dataset())
    assert {p.name for p in tmp_path.iterdir()} <= {"small.lock"}


def test_write_interrupted_keeps_the_old_entry(tmp_path, monkeypatch):
    path = tmp_path / "small.npz"
    write(path, "f", small_dataset(seed=0))

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(path, "g", small_dataset(seed=1))
    assert_same(read(path, "f"), small_dataset(seed=0))
    assert [p.name for p in tmp_path.iterdir()] == ["small.npz"]


def test_cached_keeps_odd_names(tmp_path):
    odd = os.fsdecode(b"\xff 'quoted'")  # as a folder of images may be called
    dataset = dataclasses.replace(small_dataset(), name=odd)
    write(tmp_path / "small.npz", "f", dataset)
    assert_same(read(tmp_path / "small.npz", "f"), dataset)


def test_cached_removes_the_partial_files_of_killed_processes(tmp_path):
    for name in (".small.npz.1.partial", ".other.npz.1.partial"):
        (tmp_path / name).touch()
    get(tmp_path, Builder())
    assert {p.name for p in tmp_path.iterdir()} - {"small.lock"} == {
        "small.npz",
        ".other.npz.1.partial",
    }


@pytest.mark.slow
def test_cached_builds_once_for_two_processes(tmp_path):
    program = """
import sys, time
from pathlib import Path
import numpy as np
from convjax.data import Dataset, Split
from convjax.data.cache import cached
folder, me = Path(sys.argv[1]), sys.argv[2]
def build():
    (folder / f"built-by-{me}").touch()
    time.sleep(1)
    split = Split(np.full((3, 2, 2, 1), ord(me), np.uint8), np.zeros(3, np.int32))
    return Dataset("both", split, split, ("a",))
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
dataset = cached("both", "f", build, cache_dir=folder, required=True)
print(dataset.train.images[0, 0, 0, 0])
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), me], stdout=subprocess.PIPE, text=True
        )
        for me in "xy"
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    builders = [path.name[-1] for path in tmp_path.glob("built-by-*")]
    assert len(builders) == 1
    assert [int(output) for output in outputs] == [ord(builders[0])] * 2


@pytest.mark.slow
def test_read_during_a_write_sees_complete_files(tmp_path):
    path = tmp_path / "small.npz"
    write(path, "f", small_dataset())
    program = """
import sys
from pathlib import Path
from convjax.data.cache import read, write
path = Path(sys.argv[1])
dataset = read(path, "f")
for _ in range(200):
    write(path, "f", dataset)
"""
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
    reads = 0
    while writer.poll() is None:
        np.testing.assert_array_equal(read(path, "f").train.labels, small_dataset().train.labels)
        reads += 1
    assert writer.returncode == 0
    assert reads > 10
