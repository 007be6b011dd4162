import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convjax.data import DataError, load

from .conftest import SHARED, assert_same, write_idx_set

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path)


def grey(value, size=(4, 5)):
    return np.full(size, value, np.uint8)


def colour(*rgb):
    return np.full((4, 5, 3), rgb, np.uint8)


@pytest.fixture
def root(tmp_path):
    """Two classes of grey images; the value of each pixel is the number in the file's name."""
    root = tmp_path / "digits"
    for split, numbers in (("train", (1, 2, 10)), ("test", (3,))):
        for offset, name in ((0, "a"), (100, "b")):
            for number in numbers:
                save(root / split / name / f"{number}.png", grey(offset + number))
    return root


def values(split):
    """The first pixel of each image, channels together."""
    return split.images[:, 0, 0].tolist()


def test_by_hand(root):
    dataset = load(root)
    assert dataset.name == "digits"
    assert dataset.class_names == ("a", "b")
    assert dataset.train.images.shape == (6, 4, 5, 1)
    assert values(dataset.train) == [[1], [2], [10], [101], [102], [110]]  # 2 before 10
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert values(dataset.test) == [[3], [103]]
    assert dataset.test.labels.tolist() == [0, 1]


def test_pixels_agree_with_pillow(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for name in ("cat.jpg", "dog.JPEG", "eel.png"):
            save(tmp_path / split / "animals" / name, rng.integers(0, 256, (9, 7, 3), np.uint8))
    dataset = load(str(tmp_path))
    for index, name in enumerate(("cat.jpg", "dog.JPEG", "eel.png")):
        expected = np.asarray(Image.open(tmp_path / "train" / "animals" / name))
        np.testing.assert_array_equal(dataset.train.images[index], expected)


@pytest.mark.parametrize(("train", "test"), [("training", "testing"), ("train", "valid")])
def test_other_names_of_the_splits(root, train, test):
    expected = load(root)
    (root / "train").rename(root / train)
    (root / "test").rename(root / test)
    assert_same(load(root), expected)


def test_test_comes_before_valid(root):
    shutil.copytree(root / "test", root / "valid")
    save(root / "valid" / "a" / "3.png", grey(77))
    assert values(load(root).test) == [[3], [103]]


def test_hidden_and_other_files_are_passed_over(root):
    expected = load(root)
    (root / "train" / "a" / "._1.png").write_bytes(b"resource fork")
    (root / "train" / "a" / "notes.txt").touch()
    (root / "train" / ".cache").mkdir()
    (root / "train" / "labels.csv").touch()
    assert_same(load(root), expected)


def test_greyscale_modes(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split / "x" / "1.png", grey(200))
        save(tmp_path / split / "x" / "2.png", grey(255) > 0)  # mode 1
        save(tmp_path / split / "x" / "3.png", np.full((4, 5), 0xABCD, np.uint16))  # mode I;16
    assert values(load(tmp_path).train) == [[200], [255], [0xAB]]


def test_one_colour_image_makes_all_rgb(root):
    save(root / "test" / "b" / "4.png", colour(1, 2, 3))
    dataset = load(root)
    assert values(dataset.train)[0] == [1, 1, 1]
    assert values(dataset.test) == [[3, 3, 3], [103, 103, 103], [1, 2, 3]]


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_other_modes_become_rgb(tmp_path, mode):
    for split in ("train", "test"):
        save(tmp_path / split / "x" / "1.png", colour(255, 0, 0), mode)
    assert values(load(tmp_path).train) == [[255, 0, 0]]


def test_second_time_decodes_nothing(root):
    expected = load(root)
    program = (
        "import sys; from convjax.data import load; dataset = load(sys.argv[1]); "
        "assert 'PIL' not in sys.modules; print(dataset)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == repr(expected)


def test_cache_follows_changes(root, tmp_path):
    load(root)
    save(root / "train" / "a" / "1.png", grey(50))
    os.utime(root / "train" / "a" / "1.png", ns=(1, 1))
    assert values(load(root).train)[0] == [50]
    (root / "train" / "a" / "2.png").rename(root / "train" / "a" / "11.png")
    assert values(load(root).train)[:3] == [[50], [10], [2]]
    # One entry for each folder, however often it changes.
    assert len(list((tmp_path / "default-cache").glob("*.data"))) == 1


def test_damaged_cache_is_rebuilt(root, tmp_path, caplog):
    expected = load(root)
    (path,) = (tmp_path / "default-cache").glob("*.data")
    path.write_bytes(path.read_bytes()[:-1])
    assert_same(load(root), expected)
    assert "building it again" in caplog.text


def test_unwritable_cache_is_a_warning(root, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.warns(UserWarning, match="going on without a cache"):
        dataset = load(root, cache_dir=blocked)
    assert len(dataset.train.images) == 6


def empty_class(root):
    for path in (root / "test" / "b").iterdir():
        path.unlink()


def truncate(root):
    path = root / "train" / "a" / "2.png"
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: shutil.rmtree(r), r"digits: no such folder; .*correct the path"),
        (lambda r: shutil.rmtree(r / "train"), "has no folder train or training; .*rename or move"),
        (lambda r: shutil.rmtree(r / "test"), "has no folder test or testing or valid"),
        (lambda r: (shutil.rmtree(r / "test"), (r / "test").mkdir()), "test: has no class folder"),
        (empty_class, r"b: holds no image \(\.png, \.jpg, \.jpeg\); each class needs at least one"),
        (
            lambda r: (r / "train" / "b").rename(r / "train" / "c"),
            r"different classes \(c only in training; b only in test\)",
        ),
        (
            lambda r: save(r / "test" / "b" / "9.png", grey(0, (6, 5))),
            r"9\.png: the image is 6×5, but .*1\.png is 4×5 \(height×width\); .*resize",
        ),
        (truncate, r"2\.png: cannot be decoded .*replace or remove"),
        (
            lambda r: (r / "train" / "a" / "2.png").write_text("no image"),
            r"2\.png: cannot be decoded \(UnidentifiedImageError",
        ),
    ],
)
def test_rejects(root, damage, message):
    damage(root)
    with pytest.raises(DataError, match=message):
        load(root)


def test_a_truncated_image_is_a_data_error_unless_all_pixels_are_there(root):
    path = root / "train" / "a" / "1.png"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5), np.uint8)
    save(path, pixels)
    content = path.read_bytes()
    rejected = 0
    # Pillow accepts a file that lacks only checksums and the end mark.
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            image = load(root).train.images[0, ..., 0]
        except DataError:
            rejected += 1
        else:
            np.testing.assert_array_equal(image, pixels)
    assert rejected >= content.index(b"IDAT") + 4


def test_a_folder_of_idx_files_is_pointed_out(tmp_path):
    write_idx_set(tmp_path)
    with pytest.raises(DataError, match=r'load\("mnist", data_dir="'):
        load(tmp_path)


def test_without_pillow(root, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'needs Pillow.*pip install "convjax\[data\]"'):
        load(root)


def test_real_colour_images(tmp_path):
    archive = SHARED / "cifar10_subset.zip"
    if not archive.is_file():
        pytest.skip(f"the CIFAR-10 subset is not at {archive}")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "cifar")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load(tmp_path / "cifar", cache_dir=tmp_path / "cache")
    assert dataset.train.images.shape == (10000, 32, 32, 3)
    assert dataset.test.images.shape == (3000, 32, 32, 3)
    assert np.bincount(dataset.train.labels).tolist() == [1000] * 10
    assert dataset.class_names[0] == "airplane"
    last = Path(tmp_path, "cifar", "test", "truck", "0299.jpg")
    np.testing.assert_array_equal(dataset.test.images[-1], np.asarray(Image.open(last)))
    assert_same(load(tmp_path / "cifar", cache_dir=tmp_path / "cache"), dataset)
