import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import rgb_to_hsv as matplotlib_hsv
from PIL import Image

from convjax.chapter.colour_encodings import (
    AT_ONCE,
    ENCODINGS,
    encode,
    encoded,
    luma,
    rgb_to_hsv,
)
from convjax.data import DataError, Dataset, Split

channel = st.integers(0, 255)
RANDOM = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), np.uint8)


def one(*rgb):
    return np.array(rgb, np.uint8).reshape(1, 1, 1, 3)


@pytest.mark.parametrize(
    ("rgb", "hsv", "grey"),
    [
        ((0, 0, 0), (0, 0, 0), 0),
        ((255, 255, 255), (0, 0, 255), 255),
        ((255, 0, 0), (0, 255, 255), 76),  # 0.299 · 255 = 76.2
        ((0, 255, 0), (85, 255, 255), 150),  # a third of a turn; 0.587 · 255 = 149.7
        ((0, 0, 255), (170, 255, 255), 29),  # 0.114 · 255 = 29.1
        ((255, 255, 0), (42, 255, 255), 226),  # a sixth of 255 is 42.5, which rounds to even
        ((100, 50, 50), (0, 128, 100), 65),  # half saturated; 50 + 0.299 · 50 = 64.95
    ],
)
def test_encode_by_hand(rgb, hsv, grey):
    np.testing.assert_array_equal(encode(one(*rgb), "hsv"), one(*hsv))
    np.testing.assert_array_equal(encode(one(*rgb), "grey"), one(grey, grey, grey))
    np.testing.assert_array_equal(encode(one(*rgb), "rgb"), one(*rgb))


@given(channel, channel, channel)
def test_rgb_to_hsv_equals_the_standard_library_and_is_inverted_by_it(red, green, blue):
    rgb = np.array([red, green, blue]) / 255
    found = rgb_to_hsv(rgb)
    # Few operations in float64, each with a relative error of 1e-16.
    np.testing.assert_allclose(found, colorsys.rgb_to_hsv(*rgb), atol=1e-14)
    np.testing.assert_allclose(colorsys.hsv_to_rgb(*found), rgb, atol=1e-14)
    assert 0 <= found[0] < 1


def test_rgb_to_hsv_returns_a_hue_below_one():
    assert rgb_to_hsv([1, 0, 1e-17])[0] < 1


def test_rgb_to_hsv_equals_matplotlib():
    np.testing.assert_allclose(rgb_to_hsv(RANDOM / 255), matplotlib_hsv(RANDOM / 255), atol=1e-14)


def test_encode_grey_equals_pillow():
    for image, found in zip(RANDOM, encode(RANDOM, "grey"), strict=True):
        wanted = np.asarray(Image.fromarray(image).convert("L"))
        np.testing.assert_array_equal(found, wanted[..., np.newaxis].repeat(3, -1))


@given(channel)
def test_luma_of_grey_is_its_value(value):
    assert luma(np.array([[value] * 3])) == [value]
    assert rgb_to_hsv([value / 255] * 3).tolist() == [0, 0, value / 255]


def test_encode_concatenates_parts_in_order():
    images = np.random.default_rng(1).integers(0, 256, (AT_ONCE + 3, 1, 1, 3), np.uint8)
    for name, function in ENCODINGS.items():
        np.testing.assert_array_equal(encode(images, name), function(images))


def test_encoded_changes_only_the_images():
    labels = np.arange(7, dtype=np.int32) % 2
    dataset = Dataset("two", Split(RANDOM, labels), Split(RANDOM[:2], labels[:2]), ("a", "b"))
    found = encoded(dataset, "hsv")
    assert (found.name, found.class_names) == ("two", ("a", "b"))
    np.testing.assert_array_equal(found.train.images, encode(RANDOM, "hsv"))
    np.testing.assert_array_equal(found.test.images, encode(RANDOM[:2], "hsv"))
    np.testing.assert_array_equal(found.train.labels, labels)


@pytest.mark.parametrize(
    ("images", "encoding", "message"),
    [
        (RANDOM, "lab", "encoding must be one of rgb, hsv, grey, got 'lab'"),
        (RANDOM[..., :1], "hsv", r"got uint8 \(7, 5, 4, 1\). Give images in colour"),
        (RANDOM / 255, "grey", "got float64"),
    ],
)
def test_encode_rejects_other_arguments(images, encoding, message):
    with pytest.raises(DataError, match=message):
        encode(images, encoding)
