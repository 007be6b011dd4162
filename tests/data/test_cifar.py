"""CIFAR from pickles and binary files, in folders and archives."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from convjax.data import DataError, load
from convjax.data.catalog import CLASS_NAMES

from .conftest import SMALL_SETS, assert_same

pytestmark = SMALL_SETS

PER_FILE = 4


def images(seed, number=PER_FILE):
    return np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), np.uint8)


def rows(pixels):
    """The published order: the red plane, row by row, then green and blue."""
    return np.concatenate([pixels[..., c].reshape(len(pixels), -1) for c in range(3)], 1)


def labels(seed, classes):
    return [(seed * 7 + i) % classes for i in range(PER_FILE)]


def cifar10(binary, protocol=2):
    """Returns the files of a small CIFAR-10, by name."""
    files = {}
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        if binary:
            each = zip(labels(seed, 10), rows(images(seed)), strict=True)
            files[f"{name}.bin"] = b"".join(bytes([label]) + row.tobytes() for label, row in each)
        else:
            batch = {b"data": rows(images(seed)), b"labels": labels(seed, 10), b"batch_label": b"x"}
            files[name] = pickle.dumps(batch, protocol)
    if binary:
        files["batches.meta.txt"] = "\n".join([*CLASS_NAMES["cifar10"], "", ""]).encode()
    else:
        names = [name.encode() for name in CLASS_NAMES["cifar10"]]
        files["batches.meta"] = pickle.dumps({b"label_names": names, b"num_vis": 3072}, protocol)
    return files


def cifar100(binary):
    files = {}
    for seed, name in enumerate(("train", "test")):
        if binary:
            each = zip(labels(seed, 100), rows(images(seed)), strict=True)
            files[f"{name}.bin"] = b"".join(bytes([9, n]) + row.tobytes() for n, row in each)
        else:
            batch = {"data": rows(images(seed)), "fine_labels": labels(seed, 100)}
            files[name] = pickle.dumps(batch | {"coarse_labels": [9] * PER_FILE}, 2)
    if binary:
        files["fine_label_names.txt"] = "\n".join(CLASS_NAMES["cifar100"]).encode()
    else:
        files["meta"] = pickle.dumps({"fine_label_names": list(CLASS_NAMES["cifar100"])}, 2)
    return files


FOLDERS = {
    ("cifar10", False): ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ("cifar10", True): ("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    ("cifar100", False): ("cifar-100-python", "cifar-100-python.tar.gz"),
    ("cifar100", True): ("cifar-100-binary", "cifar-100-binary.tar.gz"),
}


def files_of(name, binary):
    return (cifar10 if name == "cifar10" else cifar100)(binary)


def unpacked(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def packed(path, folder, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("name", "binary"), FOLDERS)
def test_load_cifar_in_every_form(tmp_path, name, binary, monkeypatch):
    folder, archive = FOLDERS[name, binary]
    files = files_of(name, binary)
    dataset = load(name, data_dir=unpacked(tmp_path / "a" / folder, files))
    classes, test = (10, 5) if name == "cifar10" else (100, 1)
    np.testing.assert_array_equal(
        dataset.train.images, np.concatenate([images(seed) for seed in range(test)])
    )
    np.testing.assert_array_equal(dataset.test.images, images(test))
    assert dataset.train.labels.tolist() == [n for s in range(test) for n in labels(s, classes)]
    assert dataset.test.labels.tolist() == labels(test, classes)
    assert dataset.class_names == CLASS_NAMES[name]
    assert_same(load(name, data_dir=tmp_path / "a"), dataset)  # the folder above
    file = packed(tmp_path / "b" / name / archive, folder, files)
    for place in (file, file.parent, file.parents[1]):
        assert_same(load(name, data_dir=place), dataset)
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path / "a"))
    assert_same(load(name), dataset)


@pytest.mark.parametrize("protocol", range(5))
def test_load_cifar_of_every_pickle_protocol(tmp_path, protocol):
    folder = unpacked(tmp_path / "cifar-10-batches-py", cifar10(False, protocol))
    np.testing.assert_array_equal(load("cifar10", data_dir=folder).test.images, images(5))


@pytest.mark.parametrize(
    ("name", "binary", "change", "message"),
    [
        ("cifar10", False, {"data_batch_3": None}, "lacks data_batch_3. Unpack the whole archive"),
        ("cifar10", True, {"batches.meta.txt": None}, "lacks batches.meta.txt"),
        ("cifar10", True, {"test_batch.bin": b"x" * 3072}, "a multiple of 3073 bytes, 1 for the l"),
        ("cifar100", True, {"test.bin": b"x" * 3073}, "a multiple of 3074 bytes, 2 for the label"),
        ("cifar10", False, {"test_batch": b"x"}, r"test_batch in .* must be a pickle of arrays"),
        (
            "cifar10",
            False,
            {"batches.meta": pickle.dumps({"label_names": ["a"]})},
            r"must hold cifar10, whose classes are airplane, .*, got a in batches\.meta",
        ),
        ("cifar10", False, {"batches.meta": pickle.dumps([])}, "must have the list label_names"),
        (
            "cifar100",
            False,
            {"test": pickle.dumps({"data": rows(images(0)), "labels": [1] * 4}, 2)},
            r"must have images, .* one label for each, fine_labels, got data, labels",
        ),
        (
            "cifar10",
            True,
            {"test_batch.bin": b"\x0b" + b"x" * 3072},
            r"test_batch\.bin in .* must hold labels below 10, got 11",
        ),
    ],
)
def test_load_cifar_rejects(tmp_path, name, binary, change, message):
    files = files_of(name, binary) | change
    files = {name: content for name, content in files.items() if content is not None}
    with pytest.raises(DataError, match=message):
        load(name, data_dir=unpacked(tmp_path / FOLDERS[name, binary][0], files))


def test_load_cifar_rejects_a_damaged_archive(tmp_path):
    file = packed(tmp_path / "cifar-10-python.tar.gz", "x", cifar10(False))
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(
        DataError, match=r"gz is a truncated or damaged archive .*Download it again"
    ):
        load("cifar10", data_dir=tmp_path)
    file.write_bytes(b"<html>")
    with pytest.raises(DataError, match="is a truncated or damaged archive"):
        load("cifar10", data_dir=tmp_path)


def test_load_cifar100_says_what_it_needs(tmp_path):
    with pytest.raises(
        DataError, match=r"data_dir must hold the published archive .*, got nothing"
    ):
        load("cifar100")
    with pytest.raises(DataError, match=r"got .* which has none of them.*Correct data_dir\.$"):
        load("cifar100", data_dir=tmp_path)
