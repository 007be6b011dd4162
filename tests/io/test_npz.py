import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convjax.io.npz import NpzError, read_npz
from tests.io.archives import header, npy, write_archive

ARRAYS = {
    "matrix": np.arange(6).reshape(2, 3),
    "in columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "names": np.array(["conv", "Ähre"]),
    "nothing": np.zeros((0, 3), np.float32),
    "no names": np.array((), np.str_),
    "number": np.int64(4),
    "flags": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "big end first": np.arange(3, dtype=">i4"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_npz_round_trip(save, tmp_path):
    save(tmp_path / "file.npz", **ARRAYS)
    for path in (tmp_path / "file.npz", str(tmp_path / "file.npz")):
        found = read_npz(path)
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


def test_read_npz_rejects_other_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "absent.npz")
    with pytest.raises(NpzError, match="it is a folder"):
        read_npz(tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")  # opening it would wait forever
    with pytest.raises(NpzError, match="it is not a regular file"):
        read_npz(tmp_path / "pipe.npz")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(NpzError, match="it cannot be read: "):
        read_npz(tmp_path / "loop")
    with pytest.raises(NpzError, match="it cannot be read: embedded null"):
        read_npz("a\0b")
    with pytest.raises(TypeError, match="path must be a file's path, got int: 3"):
        read_npz(3)  # `open` would take it for a file descriptor


def test_read_npz_without_permission(tmp_path, monkeypatch):
    np.savez(tmp_path / "file.npz", x=np.arange(3))

    def refuse(*arguments):  # the user who runs the tests may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(NpzError, match="it cannot be read: Permission denied"):
        read_npz(tmp_path / "file.npz")


GOOD = npy(np.arange(3))
HUGE = header("<f8", (10**12,))
BAD = {
    "objects": (
        {"x.npy": npy(np.array([{}], object))},
        "'x' must be plain numbers or text, got the type object",
    ),
    "structures": (
        {"x.npy": npy(np.zeros(2, "i4,f4"))},
        "'x' must be plain numbers or text, got the type",
    ),
    "dates": (
        {"x.npy": npy(np.zeros(2, "M8[s]"))},
        "'x' must be plain numbers or text, got the type datetime64",
    ),
    "bytes": ({"x.npy": npy(np.zeros(2, "S3"))}, "'x' must be plain numbers or text, got the type"),
    # Entries of size 0: any number of them takes no byte.
    "endless names": (
        {"x.npy": header("<U0", (10**15,))},
        "'x' must be plain numbers or text, got the type <U0",
    ),
    "no header": ({"x.npy": b"1 2 3 4 5 6 7 8"}, "damaged"),
    "half a header": ({"x.npy": GOOD[:30]}, "damaged"),
    "a later version": ({"x.npy": b"\x93NUMPY\3\0" + GOOD[8:]}, r"npy version \(3, 0\)"),
    "code for a header": ({"x.npy": header("<i8", "print('run')")}, "damaged"),
    "an odd header": ({"x.npy": header("<i8", "(0or 3,)")}, "damaged"),
    "of Python 2": ({"x.npy": header("<i8", "(3L,)") + bytes(24)}, "damaged"),
    "fewer entries": ({"x.npy": GOOD[:-1]}, r"'x' declares 24 bytes, .* but has 23"),
    "more entries": ({"x.npy": GOOD + b"\0"}, r"'x' declares 24 bytes, .* but has 25"),
    "far fewer": ({"x.npy": HUGE}, r"'x' declares 8000000000000 bytes, .* but has 0"),
    "fewer than none": ({"x.npy": header("<i8", (-1, -3)) + bytes(24)}, "'x' declares"),
    "no text": ({"x.npy": header("<U1", (1,)) + struct.pack("<I", 0xFFFFFFFF)}, "damaged"),
    "half of a pair": ({"x.npy": header("<U1", (1,)) + struct.pack("<I", 0xD800)}, "damaged"),
    "foreign": ({"x.npy": GOOD, "read.me": b"hello"}, "contains 'read.me', which is not an array"),
    "a folder": ({"x.npy/": b""}, "contains 'x.npy/', which is not an array"),
}


@pytest.mark.parametrize("compress", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("members", "message"), BAD.values(), ids=BAD)
def test_read_npz_rejects_other_content(members, message, compress, tmp_path):
    path = write_archive(tmp_path / "file.npz", members, compress)
    with pytest.raises(NpzError, match=message):
        read_npz(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_read_npz_rejects_other_compressions(method, tmp_path):
    path = write_archive(tmp_path / "file.npz", {"x.npy": GOOD}, method)
    with pytest.raises(NpzError, match=r"'x\.npy' has a compression that NumPy does not write"):
        read_npz(path)


def test_read_npz_rejects_duplicate_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as file:
        file.writestr("x.npy", GOOD)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("x.npy", GOOD)
    with pytest.raises(NpzError, match="two of its arrays have the same name"):
        read_npz(tmp_path / "file.npz")


def changed_directory(path, offset, form, value):
    """Changes a field of the first entry of an archive's directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(b"PK\1\2") + offset, value)
    path.write_bytes(content)
    return path


CRC, COMPRESSED, LENGTH, FLAGS = (16, "<I"), (20, "<I"), (24, "<I"), (8, "<H")


@pytest.mark.parametrize(
    ("field", "value", "compress", "message"),
    [
        (CRC, 0, zipfile.ZIP_STORED, "damaged .*, BadZipFile"),
        (FLAGS, 1, zipfile.ZIP_STORED, r"'x\.npy' is encrypted"),
        (LENGTH, 2**31, zipfile.ZIP_STORED, r"'x\.npy' declares two different lengths"),
        (LENGTH, 2**31, zipfile.ZIP_DEFLATED, r"'x' declares 24 bytes, .* but has 2147483520"),
        (LENGTH, 2**31 + 1, zipfile.ZIP_DEFLATED, "it must unfold to .* got 2147483649"),
        (COMPRESSED, 2**31, zipfile.ZIP_DEFLATED, "declare more bytes than the file has"),
    ],
)
def test_read_npz_rejects_a_wrong_directory(field, value, compress, message, tmp_path):
    path = write_archive(tmp_path / "file.npz", {"x.npy": GOOD}, compress)
    with pytest.raises(NpzError, match=message):
        read_npz(changed_directory(path, *field, value))


def test_read_npz_limits_compressed_arrays(tmp_path):
    array = np.zeros(1000)
    np.savez_compressed(tmp_path / "compressed.npz", x=array, y=array)
    np.savez(tmp_path / "stored.npz", x=array, y=array)
    length = 2 * (8000 + 128)  # with their headers
    assert len(read_npz(tmp_path / "compressed.npz", limit=length)) == 2
    with pytest.raises(NpzError, match=f"at most 16000 bytes, got {length}"):
        read_npz(tmp_path / "compressed.npz", limit=16000)
    # Uncompressed arrays are as long as their file.
    assert len(read_npz(tmp_path / "stored.npz", limit=0)) == 2


def test_read_npz_checks_declared_arrays_before_it_unfolds_them(tmp_path):
    arrays = {"small": np.arange(3), "large": np.random.default_rng(0).random((1000, 7))}
    np.savez_compressed(tmp_path / "file.npz", **arrays)

    def check(declared):
        assert declared["small"].tolist() == [0, 1, 2]
        large = declared["large"]
        assert (large.shape, large.dtype, large.strides) == ((1000, 7), np.float64, (0, 0))
        return {"large"}

    found = read_npz(tmp_path / "file.npz", check=check)
    assert list(found) == ["large"]
    np.testing.assert_array_equal(found["large"], arrays["large"])

    def refuse(declared):
        raise LookupError("not the arrays of a cat")

    content = (tmp_path / "file.npz").read_bytes()
    # The end of the large member is damaged, which is not reached.
    large = content.index(b"large.npy") + 40_000
    damaged = content[:large] + bytes(20) + content[large + 20 :]
    (tmp_path / "file.npz").write_bytes(damaged)
    with pytest.raises(LookupError, match="not the arrays of a cat"):
        read_npz(tmp_path / "file.npz", check=refuse)


def test_read_npz_bounds_the_directory(tmp_path):
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as file:
        for i in range(40_000):
            file.writestr(f"{i}.npy", b"")
    with pytest.raises(NpzError, match=r"its directory must have at most 2097152 bytes, .* got 2"):
        read_npz(tmp_path / "many.npz")
    # More than 65,535 members have a directory of the newer format.
    content = bytearray((tmp_path / "many.npz").read_bytes())
    end = content[-22:]
    size = struct.unpack_from("<I", end, 12)[0]
    struct.pack_into("<HHI", end, 8, 0xFFFF, 0xFFFF, 0xFFFFFFFF)
    newer = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 40_000, 40_000, size, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    (tmp_path / "newer.npz").write_bytes(content[:-22] + newer + locator + end)
    with pytest.raises(NpzError, match=f"its directory must have .* got {size}"):
        read_npz(tmp_path / "newer.npz")
    np.savez(tmp_path / "some.npz", **{f"a{i}": np.int8(i % 100) for i in range(3000)})
    assert len(read_npz(tmp_path / "some.npz")) == 3000


def test_read_npz_memory_stays_below_the_limit(tmp_path):
    write_archive(tmp_path / "file.npz", {"x.npy": header("<f8", (2**23,)) + bytes(2**26)})
    tracemalloc.start()
    with pytest.raises(NpzError, match="it must unfold to"):
        read_npz(tmp_path / "file.npz", limit=2**24)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21  # nothing was unfolded


BOMB = """
import resource, sys
from convjax.io.npz import NpzError, read_npz
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
room = used + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
for path in sys.argv[1:]:
    try:
        read_npz(path)
    except NpzError as error:
        print(error)
"""


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs /proc for the memory in use"
)
def test_read_npz_of_bombs_in_a_process_with_little_memory(tmp_path):
    np.savez_compressed(tmp_path / "many.npz", **{f"a{i}": np.zeros(2**22) for i in range(4)})
    bomb = tmp_path / "bomb.npz"
    # The directory declares 4 GiB of zeros, and the file contains 4 arrays of 32 MiB.
    changed_directory(tmp_path / "many.npz", *LENGTH, 2**32 - 2).rename(bomb)
    huge = write_archive(tmp_path / "huge.npz", {"x.npy": HUGE})
    done = subprocess.run(
        [sys.executable, "-c", BOMB, bomb, huge], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    unfolds, declares = done.stdout.splitlines()
    assert unfolds.startswith("it must unfold to at most 2147483648 bytes, got 43")
    assert declares.startswith("'x' declares 8000000000000 bytes")


class Trap:
    """Creates the file `mark` when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_read_npz_executes_nothing(tmp_path):
    mark = tmp_path / "executed"
    np.savez(tmp_path / "trap.npz", x=np.array([Trap(mark)], object))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap(mark)))
    for name in ("trap.npz", "bare.npz"):
        with pytest.raises(NpzError):
            read_npz(tmp_path / name)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))  # the trap works
    assert mark.exists()
