"""Coloured digits: a stand-in for images in colour, made of images that have none.

Each image is tinted with one of five hues. Most images of a class have the hue of their class, the
others any of the other hues, so that colour carries part of the class: a known part. All hues have
the same luma at every brightness, so that the grey image says nothing about the hue.
"""

import colorsys
from functools import cache

import numpy as np
import numpy.typing as npt

from convjax.data import Dataset, Split
from experiments.features.colour_encodings import LUMA, Pixels

HUES = 5

# How many images have the hue of their class: with ten classes, two to a hue, who sees the hue
# alone is right in OWN / 2 of the images at best.
OWN = 0.9

# Luma of full ink, and how far its colour lies from that grey: the most at which each of the five
# hues stays within 0..255. At the luma of white there would be no colour but white.
FULL, CHROMA = 128, 0.6


@cache
def palette() -> Pixels:
    """Returns the colour of each hue at each brightness, (5, 256, 3), uint8.

    The luma of an entry, as `encodings.luma` rounds it, depends on the brightness alone.
    """
    weights = np.array(LUMA) / sum(LUMA)
    pure = np.array([colorsys.hsv_to_rgb(hue / HUES, 1, 1) for hue in range(HUES)])
    away = pure - (pure @ weights)[:, np.newaxis]  # from the grey of the same luma
    ink = np.arange(256)[:, np.newaxis] / 255
    grey = np.rint(FULL * ink)
    colours = np.rint(grey + CHROMA * 255 * ink * away[:, np.newaxis]).astype(np.int64)
    # Rounding the channels moves the luma by up to half a step; the green that is nearest to the
    # wanted luma moves it by less, because one step of green is less than one of luma.
    rest = grey[:, 0] * sum(LUMA) - colours[..., 0] * LUMA[0] - colours[..., 2] * LUMA[2]
    colours[..., 1] = np.rint(rest / LUMA[1])
    return colours.astype(np.uint8)


def hues(labels: npt.NDArray[np.int32], classes: int, seed: int) -> npt.NDArray[np.int64]:
    """Returns the hue of each image, (N,), from 0 to 4.

    Args:
      labels: (N,), from 0 to classes − 1.
      classes: neighbours share a hue where there are more than five.
      seed: of the images that have another hue than their class.
    """
    # Of NumPy's generators only the bits are the same in all versions; see `epoch_order`.
    bits = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(2 * len(labels))
    own, other = bits.reshape(2, -1) / 2.0**64
    away = np.where(own < OWN, 0, 1 + (other * (HUES - 1)).astype(np.int64))
    return (labels.astype(np.int64) * HUES // classes + away) % HUES


def coloured(dataset: Dataset, seed: int = 0) -> Dataset:
    """Returns the data set with its images in colour: as they are, or tinted where they are grey.

    Args:
      seed: of the tints; the test images have the next one.
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
