import dataclasses

import numpy as np
import pytest

from convjax.data import DataError, Dataset, Split

from .conftest import small_dataset


def images(number=2, shape=(4, 4, 1)):
    return np.zeros((number, *shape), np.uint8)


def labels(*values):
    return np.array(values, np.int32)


def test_split_does_not_copy():
    pixels = images()
    split = Split(pixels, labels(0, 1))
    assert np.shares_memory(split.images, pixels)
    assert split.labels.tolist() == [0, 1]


def test_split_is_read_only_and_its_source_is_not():
    pixels = images()
    split = Split(pixels, labels(0, 1))
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        split.labels = labels(1, 1)
    pixels[0] = 1


def test_dataset_repr_gives_sizes():
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
        ([[0]], labels(0), r"images must be a NumPy array .* got list\. .*numpy\.asarray"),
        (
            images().astype(float),
            labels(0, 1),
            r"images must be uint8 with axes .* got float64 of shape",
        ),
        (
            images()[..., 0],
            labels(0, 1),
            r"images .*\(N, H, W, C\), or float32, got uint8 of shape \(2, 4, 4\)",
        ),
        (
            images(),
            np.array([0, 1]),
            r"labels must be int32 .* or float32, got int64",
        ),
        (images(0), labels(), r"images must have at least one .* got the shape \(0, 4, 4, 1\)"),
        (images(3), labels(0, 1), "labels must be one for each of the 3 images, got 2 labels"),
        (images(), labels(0, -1), "labels must be class indices from 0, got -1"),
    ],
)
def test_split_rejects(pixels, numbers, message):
    with pytest.raises(DataError, match=message):
        Split(pixels, numbers)


@pytest.mark.parametrize(
    ("test_shape", "names", "message"),
    [
        ((4, 4, 3), ("a", "b"), "test images must be 4×4×1 .* got 4×4×3 in x"),
        ((4, 4, 1), ("a", "a"), r"class_names must be .* got \('a', 'a'\) in x\. Rename 'a'"),
        ((4, 4, 1), (), r"class_names must be at least one, .* got \(\)"),
        ((4, 4, 1), ("a",), r"train labels must be below 1, .* got 1 in x"),
    ],
)
def test_dataset_rejects(test_shape, names, message):
    train = Split(images(), labels(0, 1))
    with pytest.raises(DataError, match=message):
        Dataset("x", train, Split(images(2, test_shape), labels(0, 1)), names)
