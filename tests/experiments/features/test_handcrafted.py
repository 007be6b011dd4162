import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from convjax.chapter.colour_encodings import luma
from experiments.features import handcrafted
from experiments.features.handcrafted import (
    HAND_MADE,
    LAPLACIAN,
    SOBEL,
    both_signs,
    filtered,
    gabor_pairs,
    pixels,
    pooled,
)

RNG = np.random.default_rng(0)


def test_sobel_by_hand():
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[:, :, 4:] = 255  # dark to bright, between the two columns of cells
    found = HAND_MADE["sobel"](image).reshape(2, 2, 4)
    # The response is 1 + 2 + 1 in one of four columns of each cell.
    np.testing.assert_array_equal(found, np.broadcast_to([1, 0, 0, 0], (2, 2, 4)))
    mirrored = HAND_MADE["sobel"](image[:, :, ::-1]).reshape(2, 2, 4)
    np.testing.assert_array_equal(mirrored, np.broadcast_to([0, 0, 1, 0], (2, 2, 4)))
    turned = HAND_MADE["sobel"](image.swapaxes(1, 2)).reshape(2, 2, 4)
    np.testing.assert_array_equal(turned, np.broadcast_to([0, 1, 0, 0], (2, 2, 4)))


def test_laplacian_by_hand():
    image = np.zeros((1, 4, 4, 1), np.uint8)
    image[0, 1, 1] = 255
    # −4 at the spot and 1 at its four neighbours, averaged over 16 pixels.
    np.testing.assert_array_equal(HAND_MADE["laplacian"](image), [[4 / 16, 4 / 16]])


@pytest.mark.parametrize("kernel", [SOBEL, LAPLACIAN, gabor_pairs()[1, 5]])
def test_filtered_equals_scipy(kernel):
    images = RNG.random((2, 11, 12)).astype(np.float32)
    wanted = [ndimage.correlate(image, kernel, mode="nearest") for image in images]
    # Sums of at most 81 products in float32.
    np.testing.assert_allclose(
        filtered(images, np.asarray(kernel)[np.newaxis])[..., 0], wanted, atol=1e-5
    )


def test_pooled_by_hand():
    maps = np.arange(2 * 9 * 8 * 3, dtype=np.float32).reshape(2, 9, 8, 3)
    found = np.asarray(pooled(maps)).reshape(2, 2, 2, 3)
    np.testing.assert_allclose(found[1, 1, 0], maps[1, 4:8, :4].mean((0, 1)), rtol=1e-6)


def test_both_signs_keeps_every_response():
    maps = RNG.standard_normal((2, 3, 3, 2))
    up, down = np.split(np.asarray(both_signs(maps)), 2, axis=-1)
    np.testing.assert_allclose(up - down, maps, rtol=1e-6)
    assert min(up.min(), down.min()) == 0


def test_gabor_pairs_are_an_even_and_an_odd_wave():
    even, odd = gabor_pairs()
    assert even.shape == (8, 9, 9)
    np.testing.assert_allclose(even, even[:, ::-1, ::-1], atol=1e-12)
    np.testing.assert_allclose(odd, -odd[:, ::-1, ::-1], atol=1e-12)
    for waves in (even, odd):
        np.testing.assert_allclose(np.linalg.norm(waves, axis=(1, 2)), 1)
        np.testing.assert_allclose(waves.sum((1, 2)), 0, atol=1e-12)


@pytest.mark.parametrize(("wavelength", "number"), [(3, 0), (6, 4)])
def test_gabor_responds_to_wavelength_and_direction(wavelength, number):
    across = 128 + 100 * np.cos(2 * np.pi * np.arange(24) / wavelength + 0.7)
    image = np.broadcast_to(across, (1, 24, 24))[..., np.newaxis].astype(np.uint8)

    def strongest(image):
        return np.argmax(HAND_MADE["gabor"](image).reshape(-1, 8).mean(0))

    assert strongest(image) == number
    assert (
        strongest(image.swapaxes(1, 2)) == number + 2
    )  # four directions: two further is a right angle


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 255), st.sampled_from([1, 3]))
def test_hand_made_features_are_zero_for_constant_brightness(value, channels):
    image = np.full((1, 12, 12, channels), value, np.uint8)
    for name, features in HAND_MADE.items():
        # The weights of a filter add up to 0 within the rounding of float32.
        np.testing.assert_allclose(features(image), 0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("shape", "cells"), [((28, 28, 1), 49), ((32, 32, 3), 64)])
def test_hand_made_features_have_the_documented_sizes(shape, cells):
    images = RNG.integers(0, 256, (3, *shape), np.uint8)
    sizes = {name: features(images).shape for name, features in HAND_MADE.items()}
    side = int(cells**0.5) - 1
    assert sizes == {
        "sobel": (3, 4 * cells),
        "laplacian": (3, 2 * cells),
        "gabor": (3, 8 * cells),
        "hog": (3, side**2 * 2 * 2 * 9),
    }
    assert pixels(images).shape == (3, np.prod(shape))
    assert {features(images).dtype for features in HAND_MADE.values()} == {np.dtype("float32")}


def test_hand_made_filters_read_the_luma(monkeypatch):
    images = RNG.integers(0, 256, (5, 12, 12, 3), np.uint8)
    grey = luma(images).astype(np.uint8)[..., np.newaxis]
    whole = {name: features(grey) for name, features in HAND_MADE.items()}
    for name in ("sobel", "laplacian", "gabor"):
        np.testing.assert_array_equal(HAND_MADE[name](images), whole[name])
    # HOG reads each channel: red on equally bright green is invisible in the luma.
    assert not np.allclose(HAND_MADE["hog"](images), whole["hog"])
    monkeypatch.setattr(handcrafted, "AT_ONCE", 2)
    np.testing.assert_allclose(HAND_MADE["gabor"](grey), whole["gabor"], atol=1e-6)
