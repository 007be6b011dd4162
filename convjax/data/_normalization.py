"""Mean and standard deviation of the pixels, exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from convjax.data.dataset import DataError, ImageArray

# bincount widens its input to 8 bytes a pixel; a slice of this many pixels keeps that at 8 MiB.
_PIXELS_PER_SLICE = 1 << 20


def normalization(images: ImageArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per-channel mean and standard deviation on the scale p/255.

    Both come from the counts of the 256 pixel values in integer arithmetic, so they do not depend
    on the order of the images and carry no accumulated rounding.

    Args:
        images: (N, H, W, C) uint8.

    Returns:
        `(mean, std)`, each (C,) float64. `std` is the population value (division by N·H·W) and is
        exactly 0 for a channel that has the same value everywhere.

    Raises:
        DataError: for another dtype or number of axes, or no pixel.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"images: got {images.dtype} of shape {images.shape}; uint8 with non-empty axes "
            "(N, H, W, C) is needed: pass the images of a Split, before any scaling"
        )
    moments = [mean_and_std(images[..., channel]) for channel in range(images.shape[-1])]
    mean, std = np.array(moments, np.float64).T
    return mean, std


def mean_and_std(channel: np.ndarray) -> tuple[float, float]:
    """Mean and std of (N, H, W) uint8 on the scale p/255."""
    counts = np.zeros(256, np.int64)
    images_per_slice = max(1, _PIXELS_PER_SLICE // channel[0].size)
    for start in range(0, len(channel), images_per_slice):
        pixels = channel[start : start + images_per_slice].ravel()
        counts += np.bincount(pixels, minlength=256)
    # Python's integers do not overflow, and its division of two of them rounds once.
    number = channel.size
    total = sum(value * int(count) for value, count in enumerate(counts))
    total_of_squares = sum(value**2 * int(count) for value, count in enumerate(counts))
    variance = (number * total_of_squares - total**2) / (255 * number) ** 2
    return total / (255 * number), variance**0.5
