"""Coloured digits: a substitute for images in colour, made from grey images.

Each image is tinted with one of five hues. Most images of a class have the hue of their class, the
others have another hue, so that the colour carries a known part of the class. All hues have the
same luma at every brightness, so that the grey image contains nothing of the hue.
"""

import colorsys
from functools import cache

import numpy as np
from jaxtyping import Int, Int32, UInt8

from convjax.chapter.colour_encodings import LUMA
from convjax.data import Dataset, Split

HUES = 5

# Share of images with the hue of their class. Ten classes share five hues, so a classifier that
# sees only the hue is right for OWN_HUE_SHARE / 2 of the images at best.
OWN_HUE_SHARE = 0.9

# Luma of full ink, and the distance of its colour from that grey: the largest at which each of the
# five hues stays within 0..255. At the luma of white, white would be the only colour.
FULL_INK_LUMA, CHROMA = 128, 0.6


@cache
def palette() -> UInt8[np.ndarray, "5 256 3"]:
    """Returns the colour of each hue at each brightness, (5, 256, 3), uint8.

    The luma of an entry, as `colour_encodings.luma` rounds it, depends on the brightness alone.
    """
    weights = np.array(LUMA) / sum(LUMA)
    pure = np.array([colorsys.hsv_to_rgb(hue / HUES, 1, 1) for hue in range(HUES)])
    chroma = pure - (pure @ weights)[:, np.newaxis]  # minus the grey of the same luma
    ink = np.arange(256)[:, np.newaxis] / 255
    grey = np.rint(FULL_INK_LUMA * ink)
    colours = np.rint(grey + CHROMA * 255 * ink * chroma[:, np.newaxis]).astype(np.int64)
    # Rounding the channels changes the luma by up to half a step. Choosing green to match the luma
    # leaves a smaller change, because one step of green is less than one of luma.
    rest = grey[:, 0] * sum(LUMA) - colours[..., 0] * LUMA[0] - colours[..., 2] * LUMA[2]
    colours[..., 1] = np.rint(rest / LUMA[1])
    return colours.astype(np.uint8)


def hues(labels: Int32[np.ndarray, " N"], classes: int, seed: int) -> Int[np.ndarray, " N"]:
    """Returns the hue of each image, (N,), from 0 to 4.

    Args:
      labels: (N,), from 0 to classes − 1.
      classes: number of classes; neighbouring classes share a hue if there are more than five.
      seed: decides which images have another hue than their class.
    """
    # Only the raw bits of NumPy's generators are the same in all versions; see `epoch_order`.
    bits = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(2 * len(labels))
    own, other = bits.reshape(2, -1) / 2.0**64
    offset = np.where(own < OWN_HUE_SHARE, 0, 1 + (other * (HUES - 1)).astype(np.int64))
    return (labels.astype(np.int64) * HUES // classes + offset) % HUES


def coloured(dataset: Dataset, seed: int = 0) -> Dataset:
    """Returns the data set in colour: grey images are tinted, others stay unchanged.

    Args:
      dataset: with one or three channels.
      seed: of the tints of the training images; the test images use seed + 1.
    """
    if dataset.train.images.shape[-1] == 3:
        return dataset
    classes = len(dataset.class_names)
    train, test = (
        Split(
            palette()[
                hues(split.labels, classes, seed + i)[:, np.newaxis, np.newaxis],
                split.images[..., 0],
            ],
            split.labels,
        )
        for i, split in enumerate((dataset.train, dataset.test))
    )
    return Dataset(dataset.name, train, test, dataset.class_names)
