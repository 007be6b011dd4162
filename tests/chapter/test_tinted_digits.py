import numpy as np
import pytest

from convjax.chapter.colour_encodings import LUMA, encode, luma
from convjax.chapter.tinted_digits import (
    FULL_INK_LUMA,
    HUES,
    OWN_HUE_SHARE,
    coloured,
    hues,
    palette,
)
from convjax.data import Dataset, Split, load


def test_palette_has_one_luma_per_brightness():
    lumas = luma(palette())
    np.testing.assert_array_equal(lumas, np.broadcast_to(lumas[0], lumas.shape))
    assert (lumas[0, 0], lumas[0, 255]) == (0, FULL_INK_LUMA)
    assert (np.diff(lumas[0]) >= 0).all()
    # Before rounding, the lumas differ by at most half a step of green in either direction.
    exact = palette() @ np.array(LUMA) / 65536
    assert np.abs(exact - lumas[0]).max() <= LUMA[1] / 65536 / 2


def test_palette_hues_are_a_fifth_of_a_turn_apart():
    hue, saturation, _ = encode(palette()[:, 255:, np.newaxis], "hsv")[:, 0, 0].T
    # Mixing with grey keeps the hue; rounding changes it by a step or two.
    np.testing.assert_allclose(hue, 255 * np.arange(HUES) / HUES, atol=3)
    assert saturation.min() > 100


def test_hues_gives_nine_of_ten_images_the_hue_of_their_class():
    labels = np.repeat(np.arange(10, dtype=np.int32), 2000)
    found = hues(labels, 10, seed=0)
    own = labels // 2
    # Four standard deviations of a share of 2,000: 4·√(0.9·0.1/2000) = 0.027.
    for label in range(10):
        of_class = found[labels == label]
        assert np.mean(of_class == label // 2) == pytest.approx(OWN_HUE_SHARE, abs=0.027)
        others = np.bincount(of_class, minlength=HUES)[np.arange(HUES) != label // 2]
        assert others.min() > 0.5 * 2000 * (1 - OWN_HUE_SHARE) / 4
    # The hue alone cannot distinguish the two classes that share it.
    assert np.mean(found == own) / 2 == pytest.approx(0.45, abs=0.01)


def test_hues_depend_on_the_seed():
    labels = np.zeros(200, np.int32)
    assert (hues(labels, 10, 0) == hues(labels, 10, 0)).all()
    assert (hues(labels, 10, 0) != hues(labels, 10, 1)).any()


def test_coloured_keeps_the_digit_in_grey():
    dataset = load("mnist5k")
    found = coloured(dataset, seed=7)
    assert found.train.images.shape == (4000, 28, 28, 3)
    grey = encode(found.test.images, "grey")[..., :1]
    # The luma of full ink is 128 of 255, rounded.
    np.testing.assert_array_equal(grey, np.rint(dataset.test.images * (FULL_INK_LUMA / 255)))
    np.testing.assert_array_equal(found.test.labels, dataset.test.labels)
    assert (found.class_names, found.name) == (dataset.class_names, dataset.name)
    # Full ink shows the tint; the test images have tints of another seed.
    for split, images, seed in ((found.train, dataset.train, 7), (found.test, dataset.test, 8)):
        i, y, x = np.argwhere(images.images[..., 0] == 255)[::50].T
        wanted = palette()[hues(split.labels, 10, seed)[i], 255]
        np.testing.assert_array_equal(split.images[i, y, x], wanted)


def test_coloured_returns_images_in_colour_unchanged():
    split = Split(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1], np.int32))
    dataset = Dataset("colour", split, split, ("a", "b"))
    assert coloured(dataset) is dataset
