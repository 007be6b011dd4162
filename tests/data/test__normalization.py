from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from convjax.data import DataError, normalization


def test_normalization_by_hand():
    # Channel 0: 0 and 255, mean 1/2, std 1/2. Channel 1: always 51, which is 1/5, std 0.
    images = np.array([[[[0, 51]]], [[[255, 51]]]], np.uint8)
    mean, std = normalization(images)
    assert mean.tolist() == [0.5, 0.2]
    assert std.tolist() == [0.5, 0.0]
    assert mean.dtype == std.dtype == np.float64


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)))
def test_normalization_agrees_with_exact_fractions(images):
    mean, std = normalization(images)
    for channel in range(images.shape[-1]):
        values = [Fraction(int(p), 255) for p in images[..., channel].ravel()]
        exact_mean = sum(values) / len(values)
        variance = sum((v - exact_mean) ** 2 for v in values) / len(values)
        assert mean[channel] == float(exact_mean)
        # One rounding in the variance and one in the root: at most one unit in the last place.
        assert std[channel] == pytest.approx(float(variance) ** 0.5, rel=3e-16, abs=0)


def test_normalization_adds_up_slices():
    # More than one slice of 2**20 pixels per channel, and a remainder.
    images = np.random.default_rng(0).integers(0, 256, (1500, 28, 28, 1), np.uint8)
    mean, std = normalization(images)
    # numpy's pairwise sums in float64 are good to about 1e-15 relative.
    np.testing.assert_allclose(mean[0], (images / 255.0).mean(), rtol=1e-13)
    np.testing.assert_allclose(std[0], (images / 255.0).std(), rtol=1e-12)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 3, 1)),
        np.zeros((3, 3, 1), np.uint8),
        np.zeros((0, 3, 3, 1), np.uint8),
    ],
)
def test_normalization_rejects(images):
    with pytest.raises(
        DataError, match=r"images must be uint8 with non-empty axes .*, got .* of shape"
    ):
        normalization(images)
