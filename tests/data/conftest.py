"""Small data sets; every test is isolated from the caches and folders of the user."""

import gzip
import struct

import numpy as np
import pytest

from convjax.data import Dataset, Split
from tests.helpers import EXTRA_DATA

# For tests whose sets are too small to be likely.
UNLIKELY = ".*(also training images|nearly black|of the classes|of one class|nothing to learn)"
SMALL_SETS = pytest.mark.filterwarnings(f"ignore:{UNLIKELY}")


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """Gives a test its own cache, and no data folder from the environment."""
    monkeypatch.setenv("CONVJAX_CACHE_DIR", str(tmp_path / "default-cache"))
    monkeypatch.delenv("CONVJAX_DATA_DIR", raising=False)


@pytest.fixture
def real_mnist():
    """The folder with the complete MNIST as IDX files."""
    folder = EXTRA_DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST files in {folder}")
    return folder


def idx_bytes(array):
    """Returns an array of uint8 in IDX format, written independently of the reader."""
    array = np.asarray(array, np.uint8)
    axes = b"".join(struct.pack(">I", size) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + axes + array.tobytes()


def write_idx_set(folder, *, num_train=20, num_test=10, seed=0, compress=True, side=5):
    """Writes four IDX files of random images, and returns the arrays by file stem."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for prefix, number in (("train", num_train), ("t10k", num_test)):
        arrays[f"{prefix}-images-idx3"] = rng.integers(0, 256, (number, side, side), np.uint8)
        arrays[f"{prefix}-labels-idx1"] = (np.arange(number) % 10).astype(np.uint8)
    for stem, array in arrays.items():
        content = idx_bytes(array)
        if compress:
            (folder / f"{stem}-ubyte.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / f"{stem}-ubyte").write_bytes(content)
    return arrays


def small_dataset(name="small", seed=0):
    """Returns three classes, 6 training and 3 test images of 4×5×3."""
    rng = np.random.default_rng(seed)

    def split(number):
        images = rng.integers(0, 256, (number, 4, 5, 3), np.uint8)
        return Split(images, (np.arange(number) % 3).astype(np.int32))

    return Dataset(name, split(6), split(3), ("a", "b", "ç"))


def assert_same(first, second):
    assert (first.name, first.class_names) == (second.name, second.class_names)
    for split in ("train", "test"):
        for kind in ("images", "labels"):
            left, right = (getattr(getattr(d, split), kind) for d in (first, second))
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
