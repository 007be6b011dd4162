"""Mean and standard deviation of the pixels, computed in exact integer arithmetic."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float64, UInt8

from convjax.data.dataset import DataError

# bincount widens its input to 8 bytes a pixel; a slice of this many pixels keeps that at 8 MiB.
_PIXELS_PER_SLICE = 1 << 20


def normalization(
    images: UInt8[np.ndarray, "N H W C"],
) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
    """Returns the mean and standard deviation of each channel on the scale p/255.

    Both come from the counts of the 256 pixel values in integer arithmetic, so they do not depend
    on the order of the images and carry no accumulated rounding.

    Args:
      images: pixels from 0 to 255, as in a `Split`.

    Returns:
      `(mean, std)`. `std` is the population value (division by N·H·W) and is exactly 0 for a
      channel that has the same value everywhere.

    Raises:
      DataError: for another dtype or number of axes, or without any pixel.

    Examples:
      >>> import numpy as np
      >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
      >>> mean, std = normalization(images)
      >>> float(mean[0]), float(std[0])
      (0.5, 0.5)
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise DataError(
            "images must be uint8 with non-empty axes (N, H, W, C), got "
            f"{images.dtype} of shape {images.shape}. Pass the images of a Split, before any "
            "scaling."
        )
    return pixel_moments(images[part] for part in image_slices(images.shape))


def image_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yields slices that together cover images (N, H, W, C), each of a bounded size."""
    number, height, width, _ = shape
    step = max(1, _PIXELS_PER_SLICE // (height * width))
    return (slice(start, min(start + step, number)) for start in range(0, number, step))


def pixel_moments(
    parts: Iterable[UInt8[np.ndarray, "_ H W C"]],
) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
    """Returns `normalization` of images that arrive in parts."""
    counts = sum(np.array([_counts(part[..., c]) for c in range(part.shape[-1])]) for part in parts)
    mean, std = np.array([_mean_and_std(channel) for channel in np.asarray(counts)]).T
    return mean, std


def _counts(pixels: UInt8[np.ndarray, "..."]) -> np.ndarray:
    return np.bincount(pixels.ravel(), minlength=256)


def _mean_and_std(counts: np.ndarray) -> tuple[float, float]:
    # Python's integers do not overflow, and its division of two of them rounds once.
    number = int(counts.sum())
    total = sum(value * int(count) for value, count in enumerate(counts))
    total_of_squares = sum(value**2 * int(count) for value, count in enumerate(counts))
    variance = (number * total_of_squares - total**2) / (255 * number) ** 2
    return total / (255 * number), variance**0.5
