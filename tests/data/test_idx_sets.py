"""The sets in IDX files: names, forms, and files that are of another set."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from convjax.data import DataError, idx_sets, load, stream_idx
from convjax.data.catalog import CLASS_NAMES
from convjax.data.idx import read_idx

from .conftest import SMALL_SETS, idx_bytes, write_idx_set

pytestmark = SMALL_SETS


def idx2_bytes(rows):
    rows = np.asarray(rows, ">i4")
    return b"\0\0\x0c\x02" + struct.pack(">II", *rows.shape) + rows.tobytes()


def write_emnist(folder, name, first=0, number=60):
    """Writes images whose pixel in row r and column c is 10·r + c, but transposed as published."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = len(CLASS_NAMES[f"emnist_{name}"])
    upright = np.add.outer(10 * np.arange(4), np.arange(3))
    for split in ("train", "test"):
        images = np.repeat(upright.T[np.newaxis], number, 0)
        labels = first + np.arange(number) % classes
        stem = f"emnist-{name}-{split}"
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return upright


def test_read_idx_of_integers_by_hand(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(b"\0\0\x0c\x02" + b"\0\0\0\x01" + b"\0\0\0\x02" + b"\0\0\1\0" + b"\xff" * 4)
    assert read_idx(path, 2).tolist() == [[256, -1]]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="must hold 1 × 2 × 4 = 8 bytes as its header declares"):
        read_idx(path, 2)


def test_load_qmnist(tmp_path):
    arrays = write_idx_set(tmp_path / "raw")
    folder = tmp_path / "qmnist"
    folder.mkdir()
    for split, other in (("train", "train"), ("test", "t10k")):
        labels = arrays[f"{other}-labels-idx1"].astype(int)
        rows = np.stack([labels, *[labels * 0 + 1000] * 7], 1)
        images = idx_bytes(arrays[f"{other}-images-idx3"])
        (folder / f"qmnist-{split}-images-idx3-ubyte").write_bytes(images)
        packed = gzip.compress(idx2_bytes(rows))
        (folder / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(packed)
    dataset = load("qmnist", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["train-images-idx3"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["t10k-labels-idx1"])
    assert dataset.train.labels.dtype == np.int32
    assert stream_idx("qmnist", tmp_path).train.labels.tolist() == dataset.train.labels.tolist()
    labels = tmp_path / "raw" / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx2_bytes(rows)))
    with pytest.raises(DataError, match="It has rows of several numbers, as the labels of qmnist"):
        load("mnist", data_dir=tmp_path / "raw")


@pytest.mark.parametrize("name", ["letters", "digits", "balanced", "bymerge", "byclass", "mnist"])
@pytest.mark.parametrize("place", ["", "gzip", "emnist", "EMNIST/raw"])
def test_load_emnist(tmp_path, name, place):
    first = 1 if name == "letters" else 0
    upright = write_emnist(tmp_path / place, name, first)
    dataset = load(f"emnist_{name}", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.images[7, ..., 0], upright)
    classes = len(dataset.class_names)
    assert classes == {"letters": 26, "balanced": 47, "bymerge": 47, "byclass": 62}.get(name, 10)
    assert dataset.test.labels.tolist() == [i % classes for i in range(60)]
    streams = stream_idx(f"emnist_{name}", tmp_path)
    np.testing.assert_array_equal(streams.test.read(np.arange(60)), dataset.test.images)
    assert streams.test.labels.tolist() == dataset.test.labels.tolist()


def test_emnist_class_names():
    assert "".join(CLASS_NAMES["emnist_balanced"]) == (
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
    )
    assert CLASS_NAMES["emnist_byclass"][36] == "a"
    assert CLASS_NAMES["emnist_letters"][25] == "Z"


def test_load_rejects_emnist_labels_out_of_range(tmp_path):
    write_emnist(tmp_path, "letters", first=0)
    with pytest.raises(DataError, match=r"must hold labels from 1 to 26, got 0\. .*emnist_letters"):
        load("emnist_letters", data_dir=tmp_path)


def test_load_without_the_files_of_a_set_that_is_not_downloaded(tmp_path):
    with pytest.raises(
        DataError, match=r"four IDX files of kmnist .*, got nothing.*Correct data_di"
    ):
        load("kmnist")
    with pytest.raises(DataError, match=r"emnist-digits-train-images-idx3-ubyte, .* none of them"):
        load("emnist_digits", data_dir=tmp_path)


# --- files of another set ------------------------------------------------------------------------


def whole_set(folder, counts, seed=0):
    """Writes 60,000 and 10,000 images of 1×1 with labels in these shares."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for prefix, number in (("train", 60_000), ("t10k", 10_000)):
        labels = rng.permutation(np.repeat(np.arange(10), np.array(counts) * number // 60_000))
        images = rng.integers(0, 256, (number, 1, 1), np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def test_load_recognizes_a_whole_set_that_is_not_mnist(tmp_path):
    whole_set(tmp_path, [6000] * 10)  # as KMNIST
    with pytest.raises(
        DataError,
        match=r"hold the images of mnist, got others: their SHA-256 .*subfolder .* mnist/",
    ):
        load("mnist", data_dir=tmp_path)
    with pytest.raises(DataError, match="hold the labels of mnist, got others: their SHA-256"):
        stream_idx("mnist", tmp_path)  # which reads no images
    with pytest.raises(
        DataError, match="labels of fashion_mnist, got others: the first ten differ"
    ):
        load("fashion_mnist", data_dir=tmp_path)
    assert len(load("kmnist", data_dir=tmp_path).train.labels) == 60_000


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_load_recognizes_a_whole_set_whose_classes_are_not_equally_many(tmp_path, name):
    whole_set(tmp_path, [6600, 5400] + [6000] * 8)
    with pytest.raises(DataError, match=f"labels of {name}, got others: its classes are equally"):
        load(name, data_dir=tmp_path)


def test_load_recognizes_published_files(tmp_path, monkeypatch):
    write_idx_set(tmp_path, compress=True)
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    monkeypatch.setitem(idx_sets._MD5, hashlib.md5(file.read_bytes()).hexdigest(), "kmnist")
    assert load("kmnist", data_dir=tmp_path).name == "kmnist"
    for name in ("mnist", "fashion_mnist"):
        with pytest.raises(DataError, match=rf"file of {name}, got that of kmnist\. .*kmnist/"):
            load(name, data_dir=tmp_path)


@pytest.mark.parametrize("unpacked", [False, True])
def test_load_recognizes_mnist_under_the_names_of_others(real_mnist, tmp_path, unpacked):
    for path in real_mnist.iterdir():
        content = path.read_bytes()
        if unpacked:
            (tmp_path / path.stem).write_bytes(gzip.decompress(content))
        else:
            (tmp_path / path.name).write_bytes(content)
    for name in ("fashion_mnist", "kmnist"):
        with pytest.raises(DataError, match=rf"of {name}, got those of mnist"):
            load(name, data_dir=tmp_path)
    images = tmp_path / "changed"
    images.mkdir()
    for path in tmp_path.glob("*ubyte*"):
        path.rename(images / path.name)
    assert load("mnist", data_dir=images).name == "mnist"
    if unpacked:
        path = images / "train-images-idx3-ubyte"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match="images of mnist, got others: their SHA-256 sum"):
            load("mnist", data_dir=images)


def test_load_takes_both_forms_of_a_file_only_with_one_content(tmp_path):
    write_idx_set(tmp_path, compress=True)
    write_idx_set(tmp_path, compress=False)
    load("mnist", data_dir=tmp_path)
    write_idx_set(tmp_path, compress=False, seed=1)
    message = r"ubyte must have the content of .*ubyte\.gz, got another.* Remove one of them"
    with pytest.raises(DataError, match=message):
        load("mnist", data_dir=tmp_path)
    with pytest.raises(DataError, match=message):
        stream_idx("mnist", tmp_path)
