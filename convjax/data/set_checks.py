"""What is unlikely in a data set as a whole, and is said in warnings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from convjax._warnings import warn_user
from convjax.data._normalization import image_slices
from convjax.data.file_labels import some_names

# The published sets have some images in both splits: CIFAR-10 and Fashion-MNIST below this share.
_USUAL_SHARE = 0.01
# Images that are all below a sixteenth of white are on another scale.
_DARK = 16


class ImageFacts(NamedTuple):
    """What is known of each image of a split.

    Attributes:
      digests: (N,), equal for equal images within this process.
      lowest, highest: (N,), the extremes of the pixels.
    """

    digests: Int64[np.ndarray, " N"]
    lowest: UInt8[np.ndarray, " N"]
    highest: UInt8[np.ndarray, " N"]

    @classmethod
    def of(cls, images: UInt8[np.ndarray, "N H W C"]) -> "ImageFacts":
        """Returns the facts of images in memory."""
        rows = images.reshape(len(images), -1)
        digests = np.fromiter((hash(row.tobytes()) for row in rows), np.int64, len(rows))
        parts = [rows[part] for part in image_slices(images.shape)]
        lowest, highest = (
            np.concatenate([extreme(part, axis=1) for part in parts])
            for extreme in (np.min, np.max)
        )
        return cls(digests, lowest, highest)

    @classmethod
    def join(cls, parts: Sequence["ImageFacts"]) -> "ImageFacts":
        """Returns the facts of images that are known in parts."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


def warn_of_unlikely(
    name: str,
    train: tuple[ImageFacts, Int32[np.ndarray, " N"]],
    test: tuple[ImageFacts, Int32[np.ndarray, " M"]],
    class_names: tuple[str, ...],
) -> None:
    """Warns of what a whole data set hardly ever has, and of what it means for a training.

    Args:
      name: of the data set.
      train, test: the facts and the labels of the splits.
      class_names: of all labels.
    """
    (images, labels), (test_images, test_labels) = train, test
    lowest, highest = int(images.lowest.min()), int(images.highest.max())
    if lowest == highest:
        warn_user(
            f"every pixel of the {len(labels)} training images of {name} is {lowest}: there is "
            "nothing to learn from them. Check the files."
        )
    elif highest < _DARK:
        warn_user(
            f"no pixel of the {len(labels)} training images of {name} is above {highest}, of 255: "
            "they are nearly black. If they are on another scale (0 to 1, 12 bits, numbers of "
            "classes), save them from 0 to 255."
        )
    shared = int(np.isin(test_images.digests, images.digests).sum())
    if shared > _USUAL_SHARE * len(test_labels):
        warn_user(
            f"{shared} of the {len(test_labels)} test images of {name} are also training images, "
            "pixel by pixel: the test does not show what a network does with new images. Remove "
            "them from one split."
        )
    if len(class_names) == 1:
        warn_user(
            f"all images of {name} are of one class, {class_names[0]}: there is nothing to tell "
            "apart. Add images of other classes."
        )
    for kind, given in (("training", labels), ("test", test_labels)):
        counts = np.bincount(given, minlength=len(class_names))
        lacking = [class_name for class_name, n in zip(class_names, counts, strict=True) if not n]
        if lacking:
            warn_user(
                f"no {kind} image of {name} is of the classes {some_names(lacking)}. Add images, "
                "or choose the others with classes=."
            )
