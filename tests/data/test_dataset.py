import dataclasses

import numpy as np
import pytest

from convjax.data import DataError, Dataset, Split

from .conftest import small_dataset


def images(number=2, shape=(4, 4, 1)):
    return np.zeros((number, *shape), np.uint8)


def labels(*values):
    return np.array(values, np.int32)


def test_holds_the_given_arrays_without_copying():
    pixels = images()
    split = Split(pixels, labels(0, 1))
    assert np.shares_memory(split.images, pixels)
    assert split.labels.tolist() == [0, 1]


def test_arrays_and_fields_are_read_only_and_the_source_is_not():
    pixels = images()
    split = Split(pixels, labels(0, 1))
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        split.labels = labels(1, 1)
    pixels[0] = 1


def test_repr_gives_sizes_only():
    assert repr(small_dataset()) == (
        "Dataset('small', train: 6 images of 4×5×3, test: 3 images of 4×5×3, 3 classes: a, b, ç)"
    )
    assert repr(small_dataset().train) == "Split(6 images of 4×5×3)"
    many = Dataset(
        "m",
        Split(images(), labels(0, 1)),
        Split(images(), labels(0, 1)),
        tuple(str(n) for n in range(12)),
    )
    assert repr(many).endswith("12 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)")


@pytest.mark.parametrize(
    ("pixels", "numbers", "message"),
    [
        ([[0]], labels(0), r"images: got list; .* NumPy array .*numpy\.asarray"),
        (images().astype(float), labels(0, 1), r"images: got float64 of shape .*must be uint8"),
        (images()[..., 0], labels(0, 1), r"images: got uint8 of shape \(2, 4, 4\).*\(N, H, W, C\)"),
        (images(), np.array([0, 1]), r"labels: got int64 .*must be int32 with axes \(N\)"),
        (images(0), labels(), r"images: got shape \(0, 4, 4, 1\); every axis"),
        (images(3), labels(0, 1), "got 3 images and 2 labels; the counts must be equal"),
        (images(), labels(0, -1), "labels: got -1; .* from 0"),
    ],
)
def test_split_rejects(pixels, numbers, message):
    with pytest.raises(DataError, match=message):
        Split(pixels, numbers)


@pytest.mark.parametrize(
    ("test_shape", "names", "message"),
    [
        ((4, 4, 3), ("a", "b"), "training images are 4×4×1 and test images 4×4×3"),
        ((4, 4, 1), ("a", "a"), r"class_names: got \('a', 'a'\).*rename 'a'"),
        ((4, 4, 1), (), r"class_names: got \(\); there must be at least one"),
        ((4, 4, 1), ("a",), r"x: train labels go up to 1, but there are 1 classes.*0\.\.0"),
    ],
)
def test_dataset_rejects(test_shape, names, message):
    train = Split(images(), labels(0, 1))
    with pytest.raises(DataError, match=message):
        Dataset("x", train, Split(images(2, test_shape), labels(0, 1)), names)
