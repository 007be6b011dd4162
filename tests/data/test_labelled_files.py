"""Which files of a folder are read, with which labels, and into which split."""

import os

import numpy as np
import pytest
from PIL import Image

import convjax
from convjax.data import DataError
from convjax.data.labelled_files import list_files
from tests.data.conftest import SMALL_SETS

PETS = ("pets_cat_1.png", "pets_cat_2.png", "pets_dog_1.png", "pets_dog_10.png", "pets_dog_2.png")


@pytest.fixture
def pets(tmp_path):
    """Five empty files, whose names contain their classes; nothing here is decoded."""
    (tmp_path / "images").mkdir()
    for name in PETS:
        (tmp_path / "images" / name).touch()
    return tmp_path / "images"


def kind(name):
    return name.split("_")[1]


def names(split):
    return [(path.name, label) for path, label in split]


def test_classes_are_in_natural_order(tmp_path):
    for split in ("train", "test"):
        for name in ("10", "2", "0", "1", "x"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "a.png").touch()
    files = list_files(tmp_path)
    assert files.class_names == ("0", "1", "2", "10", "x")
    assert [label for _, label in files.train] == ["0", "1", "2", "10", "x"]
    assert files.labels(files.test).tolist() == [0, 1, 2, 3, 4]
    assert files.labels(files.test).dtype == np.int32


@pytest.mark.parametrize("inside", [False, True])
def test_one_folder_of_classes_is_split_at_random(tmp_path, inside):
    where = tmp_path / "train" if inside else tmp_path
    for name in "ab":
        (where / name).mkdir(parents=True)
        for i in range(10):
            (where / name / f"{i}.png").touch()
    files = list_files(tmp_path, test_share=0.3)
    assert (len(files.train), len(files.test)) == (14, 6)
    assert sorted(files.paths) == sorted(tmp_path.rglob("*.png"))
    for split in (files.train, files.test):
        assert split == sorted(split, key=lambda file: (file[1], int(file[0].stem)))
    assert files == list_files(tmp_path, test_share=0.3, split_seed=0)
    draws = {tuple(list_files(tmp_path, test_share=0.3, split_seed=s).test) for s in range(5)}
    assert len(draws) == 5
    assert len(list_files(tmp_path, test_share=1e-9).test) == 1
    assert len(list_files(tmp_path, test_share=1 - 1e-9).train) == 1


def test_a_folder_without_a_second_split_says_how_to_make_one(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.png").touch()
    with pytest.raises(DataError, match=r"has no folder test or .*val; .*pass test_share=0\.2"):
        list_files(tmp_path)
    with pytest.raises(DataError, match="leave an image in each split, got 1 image"):
        list_files(tmp_path, test_share=0.5)


def test_labels_from_a_function_of_the_name(pets):
    files = list_files(pets, labels=kind, test_share=0.2)
    assert files.class_names == ("cat", "dog")
    both = sorted(names(files.train) + names(files.test))
    assert both == sorted((name, kind(name)) for name in PETS)
    assert [name for name, _ in names(files.train)] == [
        name
        for name in (*PETS[:3], "pets_dog_2.png", "pets_dog_10.png")
        if name != files.test[0][0].name
    ]


def test_labels_of_any_type_become_names(pets):
    files = list_files(pets, labels=lambda name: len(name), test_share=0.2)
    assert files.class_names == ("14", "15")


@pytest.mark.parametrize("form", ["name", "path", "stem", "path without suffix"])
@pytest.mark.parametrize("csv", [False, True])
def test_labels_from_a_table(pets, tmp_path, form, csv):
    (pets / "deep").mkdir()
    for name in PETS[2:]:
        (pets / name).rename(pets / "deep" / name)
    table = {}
    for path in pets.rglob("*.png"):
        name = path.name if form in ("name", "stem") else path.relative_to(pets).as_posix()
        table[name if form in ("name", "path") else name.removesuffix(".png")] = kind(path.name)
    labels = table
    if csv:
        labels = tmp_path / "labels.csv"
        rows = [f'"{name}", {label},more' for name, label in table.items()]
        labels.write_text("\n".join(["\ufefffile,label,note", *rows, ""]), "utf-8")
    files = list_files(pets, labels=labels, test_share=0.2)
    assert sorted(names(files.train) + names(files.test)) == sorted((n, kind(n)) for n in PETS)


def test_labels_with_two_splits(pets):
    for split, chosen in (("train", PETS[:3]), ("valid", PETS[3:])):
        (pets / split).mkdir()
        for name in chosen:
            (pets / name).rename(pets / split / name)
    files = list_files(pets, labels=kind)
    assert [name for name, _ in names(files.test)] == ["pets_dog_2.png", "pets_dog_10.png"]
    assert files.class_names == ("cat", "dog")  # no cat is in the second split


def test_labels_say_what_is_missing(pets, tmp_path):
    table = {name: kind(name) for name in PETS[1:]}
    with pytest.raises(
        DataError, match=r"labels must give a label to every picture .* for 1: pets_cat_1\.png\."
    ):
        list_files(pets, labels=table, test_share=0.2)
    table |= {PETS[0]: "cat", "absent.png": "dog"}
    with pytest.warns(UserWarning, match=r"1 names in labels are of no picture .*: absent\.png\."):
        list_files(pets, labels=table, test_share=0.2)
    (pets / "notes.doc").touch()
    with pytest.warns(UserWarning, match=r"1 entries of .*: notes\.doc"):
        list_files(pets, labels=kind, test_share=0.2)
    del table["absent.png"]
    (pets / "labels.csv").touch()  # the table itself may lie beside the pictures
    (pets / "notes.doc").unlink()
    list_files(pets, labels=table, test_share=0.2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\nonly\n", r"a file name and a label in each row, got \['only'\] in row 2"),
        ("name,label\na.png,x\na.png,y\n", "one label to each name, got 'x' and 'y' for 'a.png'"),
        ("name,label\n", "must have a row for each picture after its headings, got none"),
        ("name,label\na.png,\n", "class names must be printable characters, got '' for"),
    ],
)
def test_labels_reject_tables(tmp_path, content, message):
    (tmp_path / "a.png").touch()
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        list_files(tmp_path, labels=tmp_path / "table.csv", test_share=0.5)


def test_labels_reject_functions_that_fail(pets):
    with pytest.raises(
        DataError, match=r"must return the label .*, got IndexError .* for 'pets_cat_1\.png'"
    ):
        list_files(pets, labels=lambda name: name.split("_")[9], test_share=0.2)


@SMALL_SETS
def test_a_name_of_two_pictures_is_asked_for_by_its_path(tmp_path):
    """Kaggle's train/0.png and test/0.png: the labels of one would be given to the other."""
    for i, part in enumerate(("train", "test")):
        (tmp_path / part).mkdir()
        for j in range(3):
            pixels = np.full((4, 4), 40 * i + j, np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{j}.png")
    with pytest.raises(DataError, match=r"by its path below the folder, got '0.png'.*test/0.png"):
        convjax.data.load(tmp_path, labels={f"{j}.png": "ab"[j % 2] for j in range(3)})
    paths = {f"{part}/{j}.png": "ab"[j % 2] for part in ("train", "test") for j in range(3)}
    assert convjax.data.load(tmp_path, labels=paths).class_names == ("a", "b")


@pytest.mark.parametrize("label", [1.0, float("nan"), b"cat", ("cat",)])
def test_labels_that_are_neither_text_nor_whole_numbers_are_refused(pets, label):
    with pytest.raises(DataError, match=r"labels must be text or whole numbers, got .* for .*_1"):
        list_files(pets, labels=lambda name: label, test_share=0.5)


def class_folders(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "1.png").touch()
    return root


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "Cat"), ("caf\u00e9", "cafe\u0301"), ("big cat", "big  cat")]
)
def test_classes_whose_names_are_nearly_the_same_are_named(tmp_path, one, other):
    class_folders(tmp_path, *(f"{s}/{name}" for s in ("train", "test") for name in (one, other)))
    with pytest.warns(UserWarning, match="classes whose names are nearly the same: '.*', '.*'"):
        assert len(list_files(tmp_path).class_names) == 2


def test_letters_of_both_cases_may_be_classes(tmp_path):
    class_folders(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in "aA"))
    assert list_files(tmp_path).class_names == ("A", "a")


def test_splits_whose_names_differ_in_case_are_refused(tmp_path):
    class_folders(tmp_path, "train/a", "test/a", "Train/a")
    with pytest.raises(DataError, match=r"must have one folder train, got .* Rename one"):
        list_files(tmp_path)


def test_labels_count_linked_folders_once(pets, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "pets_bird_1.png").touch()
    (pets / "linked").symlink_to(other)
    (pets / "loop").symlink_to(pets)
    found = list_files(pets, labels=kind, test_share=0.5)
    assert sorted(path.name for path in found.paths) == sorted([*PETS, "pets_bird_1.png"])


def test_labels_report_a_folder_that_cannot_be_read(pets, monkeypatch):
    (pets / "closed").mkdir()
    scan = os.scandir

    def refuse(folder):
        if os.fspath(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # permissions do not bind root
    with pytest.raises(PermissionError, match="Permission denied"):
        list_files(pets, labels=kind, test_share=0.5)
