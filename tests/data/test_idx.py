import contextlib
import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convjax.data import DataError, load
from convjax.data.idx import read_idx

from .conftest import idx_bytes, write_idx_set

in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_read_idx_by_hand(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(b"\0\0\x08\x01" + b"\0\0\0\x03" + b"\x05\x00\x09")
    assert read_idx(path, 1).tolist() == [5, 0, 9]


@in_tmp_path
@given(
    st.one_of(
        hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=1)),
        hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3)),
    ),
    st.booleans(),
)
def test_read_idx_round_trip(tmp_path, array, compress):
    path = tmp_path / ("file.gz" if compress else "file")
    path.write_bytes(gzip.compress(idx_bytes(array), mtime=0) if compress else idx_bytes(array))
    result = read_idx(path, array.ndim)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, array)


@in_tmp_path
@given(st.binary(max_size=200), st.sampled_from(["", "magic", "header"]), st.integers(0, 2))
def test_read_idx_of_arbitrary_bytes_gives_an_array_or_a_data_error(
    tmp_path, content, prefix, packing
):
    start = {"": b"", "magic": b"\0\0\x08\x03", "header": idx_bytes(np.zeros((2, 3, 4)))}[prefix]
    content = start + content
    packed = gzip.compress(content, 1, mtime=0) + b"x" * (packing - 1) if packing else content
    path = tmp_path / ("file.gz" if packing else "file")
    path.write_bytes(packed)
    for num_axes in (1, 3):
        # Any other exception fails the test, and so do warnings and overflows.
        with contextlib.suppress(DataError):
            assert idx_bytes(read_idx(path, num_axes)) == content


@in_tmp_path
@given(st.data())
def test_read_idx_of_damaged_gzip_gives_the_array_or_a_data_error(tmp_path, data):
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    packed = bytearray(gzip.compress(idx_bytes(array), mtime=0))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "file.gz"
    path.write_bytes(packed)
    try:
        result = read_idx(path, 3)
    except DataError:
        return
    # Flags and times in gzip's own header are not covered by its checksum.
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (60000, 28, 28), (10**6, 1, 1)])
def test_read_idx_memory_is_bounded_by_the_file(tmp_path, compress, shape):
    content = b"\0\0\x08\x03" + struct.pack(">3I", *shape) + b"\0" * 100
    path = tmp_path / ("file.gz" if compress else "file")
    path.write_bytes(gzip.compress(content, mtime=0) if compress else content)
    tracemalloc.start()
    with pytest.raises(DataError, match="as its header declares, got fewer"):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_read_idx_rejects_a_gzip_longer_than_its_header(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((2, 3, 4))) + b"\0" * (64 << 20)))
    tracemalloc.start()
    with pytest.raises(DataError, match="2 × 3 × 4 = 24 bytes as its header declares, got more"):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_read_idx_bounds_the_bytes_that_a_file_unfolds_to(tmp_path, monkeypatch):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((16, 1024, 1024)))))
    assert path.stat().st_size < 1 << 15
    assert read_idx(path, 3).shape == (16, 1024, 1024)
    monkeypatch.setattr("convjax.data.idx._MAX_UNFOLDED_BYTES", (1 << 24) - 1)
    tracemalloc.start()
    with pytest.raises(
        DataError, match=r"at most 16777215 bytes, got .* = 16777216 .*gunzip first"
    ):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


GOOD = idx_bytes(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "f.gz",
            gzip.compress(GOOD, mtime=0)[:-9],
            r"f\.gz is a truncated or damaged gzip.*Download it again",
        ),
        ("f.gz", b"", r"f\.gz must start with 00 00 08 03, .* got an empty file"),
        ("f.gz", GOOD, r"f\.gz is not a valid gzip file .*drop \.gz"),
        ("f.gz", b"<html>", r"f\.gz is not a valid gzip file"),
        (
            "f",
            gzip.compress(GOOD, mtime=0),
            r"f must start with .* got 1f 8b .*It is compressed: end its name in \.gz",
        ),
        (
            "f",
            b"\0\0\x0d\x03" + GOOD[4:],
            "must start with 00 00 08 03, .* 3 axes does, got 00 00 0d 03",
        ),
        ("f", idx_bytes([1, 2]), "got 00 00 08 01. .*IDX file of images"),
        ("f", GOOD[:10], "f ends within the IDX header"),
        ("f", GOOD[:-1], "2 × 3 × 4 = 24 bytes as its header declares, got fewer"),
        ("f", GOOD + b"\0", "2 × 3 × 4 = 24 bytes as its header declares, got more"),
        ("f", b"\0\0\x08\x03" + struct.pack(">3I", 0, 2**32 - 1, 2**32 - 1), "at least one"),
    ],
)
def test_read_idx_rejects(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / name, 3)


def test_read_idx_rejects_other_paths(tmp_path):
    with pytest.raises(DataError, match=r"absent does not exist\. Give the path"):
        read_idx(tmp_path / "absent", 3)
    with pytest.raises(DataError, match=r"cannot be read: .*permissions"):
        read_idx(tmp_path, 3)
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    with pytest.raises(DataError, match="pipe cannot be read: it is a folder, a pipe or a dev"):
        read_idx(tmp_path / "pipe", 3)
    with pytest.raises(
        DataError, match=r"num_axes must be 3 for images, 1 for labels or .*, got 4"
    ):
        read_idx(tmp_path / "absent", 4)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("dotted", [False, True])
def test_load_finds_every_form_of_the_four_idx_files(tmp_path, compress, subfolder, dotted):
    folder = tmp_path / subfolder
    arrays = write_idx_set(folder, compress=compress)
    if dotted:
        for path in folder.iterdir():
            path.rename(folder / path.name.replace("-idx", ".idx"))
    dataset = load("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["train-images-idx3"])
    np.testing.assert_array_equal(dataset.train.labels, arrays["train-labels-idx1"])
    np.testing.assert_array_equal(dataset.test.images[..., 0], arrays["t10k-images-idx3"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["t10k-labels-idx1"])


def test_load_prefers_the_subfolder_of_a_set(tmp_path):
    write_idx_set(tmp_path, seed=0)
    arrays = write_idx_set(tmp_path / "fashion_mnist", seed=1)
    dataset = load("fashion_mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["train-images-idx3"])
    assert dataset.class_names[9] == "Ankle boot"


def test_load_real_mnist(real_mnist):
    dataset = load("mnist", data_dir=real_mnist.parent)
    assert dataset.train.images.shape == (60000, 28, 28, 1)
    assert dataset.test.images.shape == (10000, 28, 28, 1)
    # Known counts of the digits in the training set.
    assert np.bincount(dataset.train.labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip


def test_load_fashion_mnist_rejects_files_of_mnist(real_mnist):
    with pytest.raises(
        DataError, match=r"must hold the images of fashion_mnist, got those of mnist.*subfolder"
    ):
        load("fashion_mnist", data_dir=real_mnist)


def test_load_rejects_missing_idx_files(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        DataError,
        match=r"must have all four IDX files of mnist, but lacks t10k-labels-idx1-ubyte\[\.gz\]",
    ):
        load("mnist", data_dir=tmp_path)


def test_load_rejects_idx_counts_that_differ(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes([1, 2]), mtime=0))
    with pytest.raises(
        DataError, match=r"must hold one label for each of the 20 images .* got 2 labels"
    ):
        load("mnist", data_dir=tmp_path)


def test_load_rejects_idx_labels_out_of_range(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx_bytes([10] * 10), mtime=0)
    )
    with pytest.raises(DataError, match=r"t10k-labels.* must hold labels from 0 to 9, got 10"):
        load("mnist", data_dir=tmp_path)
