"""Colour encodings of images: RGB, HSV and grey.

All have three channels of whole numbers from 0 to 255, so that one network with the same number of
parameters can read each of them.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int, Integer, UInt8

from convjax.data import DataError, Dataset, Split

Pixels = UInt8[np.ndarray, "N H W C"]

# Rec. 601 luma in 65536ths. They add up to 65536, so that a grey pixel keeps its value.
LUMA = (19595, 38470, 7471)

# Number of images converted at a time: HSV needs about 10 float64 numbers per pixel.
AT_ONCE = 1000


def luma(rgb: Integer[np.ndarray, "*shape 3"]) -> Int[np.ndarray, "*shape"]:
    """Returns the Rec. 601 luma 0.299 R + 0.587 G + 0.114 B, rounded, (...,), from 0 to 255.

    Args:
      rgb: (..., 3), from 0 to 255.
    """
    return (np.asarray(rgb, np.int64) @ np.array(LUMA) + 32768) >> 16


def rgb_to_hsv(rgb: npt.ArrayLike) -> Float[np.ndarray, "*shape 3"]:
    """Returns hue, saturation and value, (..., 3), from 0 to 1.

    The hue is in turns: 0 is red, 1/3 green, 2/3 blue. The hue of greys is 0.

    Args:
      rgb: (..., 3), from 0 to 1.
    """
    rgb = np.asarray(rgb, np.float64)
    value, chroma = rgb.max(-1), np.ptp(rgb, -1)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    divisor = np.where(chroma > 0, chroma, 1)
    # Where two channels are the largest, both formulas give the same hue.
    sixths = np.select(
        [value == red, value == green],
        [(green - blue) / divisor % 6, (blue - red) / divisor + 2],
        (red - green) / divisor + 4,
    )
    saturation = chroma / np.where(value > 0, value, 1)
    # The remainder of a tiny negative number rounds to 6, a whole turn, hence the second remainder.
    return np.stack([sixths / 6 % 1, saturation, value], -1)


def _hsv(images: Pixels) -> Pixels:
    return np.rint(rgb_to_hsv(images / 255) * 255).astype(np.uint8)


def _grey(images: Pixels) -> Pixels:
    return np.repeat(luma(images)[..., np.newaxis], 3, -1).astype(np.uint8)


ENCODINGS: dict[str, Callable[[Pixels], Pixels]] = {
    "rgb": lambda images: images,
    "hsv": _hsv,
    "grey": _grey,
}


def encode(images: Pixels, encoding: str) -> Pixels:
    """Returns images in an encoding, uint8 (N, H, W, 3).

    Args:
      images: uint8 (N, H, W, 3) in RGB.
      encoding: "rgb", "hsv" (255 means a whole turn of the hue, or 1) or "grey" (the luma, three
        times).

    Raises:
      DataError: for another encoding, dtype or shape.
    """
    if encoding not in ENCODINGS:
        raise DataError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise DataError(
            f"images must be uint8 with the shape (N, H, W, 3), got {images.dtype} {images.shape}. "
            "Give images in colour."
        )
    parts = range(0, len(images), AT_ONCE)
    return np.concatenate([ENCODINGS[encoding](images[i : i + AT_ONCE]) for i in parts])


def encoded(dataset: Dataset, encoding: str) -> Dataset:
    """Returns a data set with its images encoded, see `encode`."""
    train, test = (
        Split(encode(split.images, encoding), split.labels)
        for split in (dataset.train, dataset.test)
    )
    return Dataset(dataset.name, train, test, dataset.class_names)
