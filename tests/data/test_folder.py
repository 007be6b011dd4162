import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from convjax.data import DataError, load
from tests.helpers import EXTRA_DATA

from .conftest import SMALL_SETS, assert_same, write_idx_set

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

pytestmark = SMALL_SETS


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


def test_load_folder_by_hand(root):
    dataset = load(root)
    assert dataset.name == "digits"
    assert dataset.class_names == ("a", "b")
    assert dataset.train.images.shape == (6, 4, 5, 1)
    assert values(dataset.train) == [[1], [2], [10], [101], [102], [110]]  # 2 before 10
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert values(dataset.test) == [[3], [103]]
    assert dataset.test.labels.tolist() == [0, 1]


def test_load_folder_agrees_with_pillow(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for name in ("cat.jpg", "dog.JPEG", "eel.png"):
            save(tmp_path / split / "animals" / name, rng.integers(0, 256, (9, 7, 3), np.uint8))
    dataset = load(str(tmp_path))
    for index, name in enumerate(("cat.jpg", "dog.JPEG", "eel.png")):
        expected = np.asarray(Image.open(tmp_path / "train" / "animals" / name))
        np.testing.assert_array_equal(dataset.train.images[index], expected)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training", "testing"),
        ("train", "valid"),
        ("train", "validation"),
        ("train", "val"),
        ("Train", "Val"),
    ],
)
def test_load_folder_takes_other_split_names(root, train, test):
    expected = load(root)
    (root / "train").rename(root / train)
    (root / "test").rename(root / test)
    assert_same(load(root), expected)


def test_load_folder_prefers_test_to_valid(root):
    shutil.copytree(root / "test", root / "valid")
    save(root / "valid" / "a" / "3.png", grey(77))
    assert values(load(root).test) == [[3], [103]]


def test_load_folder_ignores_hidden_files(root):
    expected = load(root)
    (root / "train" / "a" / "._1.png").write_bytes(b"resource fork")
    (root / "train" / "a" / "Thumbs.db").touch()
    (root / "train" / ".cache").mkdir()
    (root / "train" / "labels.csv").touch()
    assert_same(load(root), expected)


def test_load_folder_names_what_is_no_picture(root):
    expected = load(root)
    (root / "train" / "a" / "notes.txt").touch()
    (root / "train" / "a" / "more").mkdir()
    (root / "test" / "drawing.png").touch()  # in no class
    for _ in range(2):  # decoded, and from the cache
        with pytest.warns(
            UserWarning,
            match=r"3 entries of .* are no pictures .*: train/a/more, train/a/notes.txt, test/draw",
        ):
            assert_same(load(root), expected)


def test_load_folder_keeps_greyscale_modes(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split / "x" / "1.png", grey(200))
        save(tmp_path / split / "x" / "2.png", grey(255) > 0)  # mode 1
        save(tmp_path / split / "x" / "3.png", np.full((4, 5), 0xABCD, np.uint16))  # mode I;16
    assert values(load(tmp_path).train) == [[200], [255], [0xAB]]


def test_load_folder_with_one_colour_image_is_rgb(root):
    save(root / "test" / "b" / "4.png", colour(1, 2, 3))
    dataset = load(root)
    assert values(dataset.train)[0] == [1, 1, 1]
    assert values(dataset.test) == [[3, 3, 3], [103, 103, 103], [1, 2, 3]]


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_load_folder_converts_other_modes_to_rgb(tmp_path, mode):
    for split in ("train", "test"):
        save(tmp_path / split / "x" / "1.png", colour(255, 0, 0), mode)
    assert values(load(tmp_path).train) == [[255, 0, 0]]


def test_load_folder_decodes_once(root):
    expected = load(root)
    program = (
        "import sys; from convjax.data import load; dataset = load(sys.argv[1]); "
        "assert 'PIL' not in sys.modules; print(dataset)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == repr(expected)


def test_load_folder_follows_changes_of_files(root, tmp_path):
    load(root)
    save(root / "train" / "a" / "1.png", grey(50))
    os.utime(root / "train" / "a" / "1.png", ns=(1, 1))
    assert values(load(root).train)[0] == [50]
    (root / "train" / "a" / "2.png").rename(root / "train" / "a" / "11.png")
    assert values(load(root).train)[:3] == [[50], [10], [2]]
    # A folder has one entry, however often it changes.
    assert len(list((tmp_path / "default-cache").glob("*.npz"))) == 1


def test_load_folder_follows_a_change_that_keeps_size_and_time(root):
    picture = root / "train" / "a" / "1.bmp"
    for level in (50, 60):
        save(picture, grey(level))
        os.utime(picture, ns=(1, 1))
        assert values(load(root).train)[0] == [level]


def test_load_folder_rebuilds_a_damaged_cache(root, tmp_path, caplog):
    expected = load(root)
    (path,) = (tmp_path / "default-cache").glob("*.npz")
    path.write_bytes(path.read_bytes()[:-1])
    assert_same(load(root), expected)
    assert "Building it again" in caplog.text


def test_load_folder_warns_of_an_unwritable_cache(root, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.warns(UserWarning, match="Continuing without a cache"):
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
        (lambda r: shutil.rmtree(r), r"digits is not a folder\. Give the path"),
        (lambda r: shutil.rmtree(r / "train"), "has no folder train or training; .*Rename or move"),
        (lambda r: shutil.rmtree(r / "test"), "has no folder test or testing or valid"),
        (lambda r: (shutil.rmtree(r / "test"), (r / "test").mkdir()), "test has no class folder"),
        (empty_class, r"b must have at least one image \(\.png, .*\.jpeg, .*\), got none"),
        (
            lambda r: (r / "train" / "b").rename(r / "train" / "c"),
            r"same classes in both splits, got c only in training; b only in test",
        ),
        (
            lambda r: save(r / "test" / "b" / "9.png", grey(0, (6, 5))),
            r"9\.png must be 4×5 \(height×width\) like .*1\.png, got 6×5\. Resize",
        ),
        (truncate, r"2\.png cannot be decoded .*Replace it"),
        (
            lambda r: (r / "train" / "a" / "2.png").write_text("no image"),
            r"2\.png cannot be decoded \(UnidentifiedImageError",
        ),
    ],
)
def test_load_folder_rejects(root, damage, message):
    damage(root)
    with pytest.raises(DataError, match=message):
        load(root)


def test_load_folder_rejects_a_truncated_image_unless_all_pixels_are_there(root):
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


def test_load_folder_recognizes_idx_files(tmp_path):
    write_idx_set(tmp_path)
    with pytest.raises(DataError, match=r"IDX files, give the name .* as data_dir"):
        load(tmp_path)


def test_load_folder_without_pillow(root, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'needs Pillow.*pip install "convjax\[data\]"'):
        load(root)


@pytest.mark.slow
def test_load_folder_of_real_colour_images(tmp_path):
    archive = EXTRA_DATA / "cifar10_subset.zip"
    if not archive.is_file():
        pytest.skip(f"no CIFAR-10 subset at {archive}")
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


# --- options -------------------------------------------------------------------------------------


def entries(tmp_path):
    return len(list((tmp_path / "default-cache").glob("*.npz")))


def test_load_folder_keeps_an_entry_for_each_form_of_the_pictures(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split / "x" / "1.png", np.dstack([grey(0), grey(0)]), "LA")
    forms = [{}, {"background": 7}, {"resize": 3}, {"resize": 3, "resize_method": "squash"}]
    first = [load(tmp_path, **form) for form in forms]
    assert [d.train.images.shape[1:] for d in first] == [(4, 5, 1)] * 2 + [(3, 3, 1)] * 2
    assert [values(d.train) for d in first] == [[[255]], [[7]], [[255]], [[255]]]
    assert entries(tmp_path) == len(forms)
    for form, expected in zip(forms, first, strict=True):
        assert_same(load(tmp_path, **form), expected)
    assert entries(tmp_path) == len(forms)


def test_load_folder_follows_changes_of_labels_and_splits(root, tmp_path):
    def load_with(**options):
        return load(root / "train", labels=lambda name: name[0], **options)

    first = load_with(test_share=0.5)
    assert_same(load_with(test_share=0.5), first)
    assert len(load_with(test_share=0.2).test.images) == 1
    other = load_with(test_share=0.5, split_seed=2)
    assert values(other.test) != values(first.test)
    names = load(root / "train", labels=lambda name: f"no {name}", test_share=0.5).class_names
    assert names == ("no 1.png", "no 2.png", "no 10.png")
    assert entries(tmp_path) == 1  # of one form of the pictures


def test_load_folder_names_all_damaged_pictures(root):
    for name in ("2", "10"):
        truncate(root)
        (root / "train" / "b" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"a/2\.png cannot be decoded .* Also wrong: .*b/2\.png, .*b/10\.png\.$"
    ):
        load(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 0}, r"resize must be a whole number from 1 .*, got int: 0\. Pass resize=64"),
        ({"resize": (8, 8, 3)}, "resize must be .*, got tuple"),
        ({"resize": 8.5}, "resize must be .*, got float: 8.5"),
        ({"resize": "8"}, "resize must be .*, got str: '8'"),
        ({"resize_method": "pad"}, "resize_method must be one of crop, squash, got str: 'pad'"),
        ({"background": 256}, "background must be a grey level from 0 to 255.*, got int: 256"),
        ({"background": (1, 2)}, "background must be .*, got tuple"),
        ({"background": "white"}, "background must be .*, got str: 'white'"),
        ({"test_share": 1.0}, r"test_share must be a number between 0 and 1, got float: 1\.0"),
        ({"test_share": True}, "test_share must be .*, got bool"),
        ({"test_share": 0.5}, r"second split of its own, got 0\.5 with .*test\. Leave test_share"),
        ({"split_seed": -1}, "split_seed must be a whole number from 0, got int: -1"),
        ({"labels": 5}, "labels must be a function of a file name, .* got int: 5"),
        ({"labels": "absent.csv"}, "labels must be a CSV file in UTF-8, got absent.csv"),
    ],
)
def test_load_folder_rejects_options(root, options, message):
    with pytest.raises(DataError, match=message):
        load(root, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"resize": 8},
        {"labels": {"1.png": "a"}},
        {"test_share": 0.5},
        {"background": 0},
        {"split_seed": 1},
    ],
)
def test_load_rejects_options_of_folders_with_a_name(options):
    (name,) = options
    with pytest.raises(DataError, match=f"{name} must go with a folder of pictures, .*'mnist5k'"):
        load("mnist5k", **options)


# --- files and folders from unknown sources ------------------------------------------------------


def declared_size(path, width, height):
    """Makes a PNG declare another size, with a matching checksum."""
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, 16, width, height)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (4096, 4097, r"1\.png must have at most 16777216 pixels, got 4097×4096 \(height×width\)"),
        (10_000, 10_000, "got 10000×10000"),  # Pillow would warn
        (2**31 - 1, 2**31 - 1, r"1\.png is too large an image .*Resize it"),
    ],
)
def test_load_folder_rejects_an_image_that_declares_too_many_pixels(root, width, height, message):
    declared_size(root / "train" / "a" / "1.png", width, height)
    tracemalloc.start()
    with pytest.raises(DataError, match=message):
        load(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_load_folder_does_not_decode_an_image_of_another_size(root):
    declared_size(root / "test" / "b" / "3.png", 4096, 4096)
    with pytest.raises(DataError, match=r"3\.png must be 4×5 .* like .*1\.png, got 4096×4096"):
        load(root)


def test_load_folder_out_of_memory(root, monkeypatch):
    def full(arrays):
        raise MemoryError

    monkeypatch.setattr(np, "concatenate", full)
    with pytest.raises(
        DataError, match=r"8 images of 4×5 in .*digits do not fit in memory\. Use fewer"
    ):
        load(root)


@pytest.mark.parametrize("kind", ["EPS", "TGA"])
def test_load_folder_rejects_other_formats_by_content(root, kind):
    # Pillow passes EPS to Ghostscript, which executes it; nothing marks the content of TGA.
    Image.fromarray(colour(1, 2, 3)).save(root / "train" / "a" / "1.png", format=kind)
    with pytest.raises(DataError, match=r"1\.png cannot be decoded .*PNG, JPEG, WEBP"):
        load(root)


def test_load_folder_of_a_transparent_palette_does_not_warn(tmp_path):
    for split in ("train", "test"):
        path = tmp_path / split / "x" / "1.png"
        path.parent.mkdir(parents=True)
        image = Image.fromarray(colour(255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE)
        image.save(path, transparency=b"\x80\xff\xff")
    # Half of red on white: 255·128/255 + 0·127/255 of green on black is 0, on white 127.
    assert values(load(tmp_path).train) == [[255, 127, 127]]
    assert values(load(tmp_path, background=0).train) == [[128, 0, 0]]


def test_load_folder_with_circular_links(root, tmp_path):
    (root / "train" / "loop").symlink_to(root / "train" / "loop")
    (root / "train" / "a" / "loop.png").symlink_to("loop.png")
    (root / "train" / "a" / "up").symlink_to(root)
    with pytest.warns(UserWarning, match=r"train/a/loop\.png, train/a/up"):
        assert len(load(root).train.images) == 6
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(DataError, match="circle"):
        load(tmp_path / "circle")


def test_load_folder_without_permission(root, monkeypatch):
    def refuse(path):  # the user who runs the tests may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"digits cannot be read: Permission denied\. .*permis"):
        load(root)


@pytest.mark.parametrize("path", ["x" * 5000 + "/", "~unknown-user-name/images"])
def test_load_folder_rejects_impossible_paths(path):
    with pytest.raises(DataError, match=r"is not a folder|cannot be read"):
        load(path)


def test_load_folder_with_odd_names(root):
    odd = os.fsdecode(b"\xff\n 'quoted' .png")
    save(root / "train" / "a" / "plain.png", grey(7))
    (root / "train" / "a" / "plain.png").rename(root / "train" / "a" / odd)
    (root / "train" / "a" / ("9" * 200 + ".png")).write_bytes(
        (root / "train" / "a" / "1.png").read_bytes()
    )
    assert len(load(root).train.images) == 8
    for split in ("train", "test"):
        (root / split / "b").rename(root / split / os.fsdecode(b"\xffb"))
    with pytest.raises(DataError, match=r"class names must be printable characters, .* Rename"):
        load(root)
