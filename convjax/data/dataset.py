"""The two containers every loader returns, and the one place where their arrays are checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from convjax._display import Displayed

ImageArray: TypeAlias = NDArray[np.uint8]
LabelArray: TypeAlias = NDArray[np.int32]


class DataError(ValueError):
    """Data, or a request for data, that breaks a rule stated in the message."""


@dataclass(frozen=True, eq=False, repr=False)
class Split(Displayed):
    """Images and their labels, in file order.

    The arrays are kept as read-only views: a data set is shared by everything that reads it, so
    copy before changing pixels.

    Attributes:
        images: (N, H, W, C) uint8, pixels 0..255, at least one image.
        labels: (N,) int32, class indices from 0.

    Raises:
        DataError: for another type, dtype or number of axes, for an empty axis, for counts that
            differ, and for a negative label.
    """

    images: ImageArray
    labels: LabelArray

    def __post_init__(self) -> None:
        _check_array("images", self.images, np.dtype(np.uint8), "NHWC")
        _check_array("labels", self.labels, np.dtype(np.int32), "N")
        if len(self.images) != len(self.labels):
            raise DataError(
                f"images and labels: got {len(self.images)} images and {len(self.labels)} labels; "
                "the counts must be equal: check that both come from the same split"
            )
        if self.labels.min() < 0:
            raise DataError(
                f"labels: got {self.labels.min()}; labels are class indices from 0: renumber them"
            )
        for field in fields(self):
            view = getattr(self, field.name).view()
            view.flags.writeable = False
            object.__setattr__(self, field.name, view)

    def __repr__(self) -> str:
        return f"Split({_size(self)})"


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Displayed):
    """A training and a test split with the names of their classes.

    Attributes:
        name: what `load` was asked for, or the folder's name.
        train: the training split, images (N, H, W, C).
        test: the test (or validation) split, images (M, H, W, C) with the same H, W and C.
        class_names: the name of label i at index i, all different.

    Raises:
        DataError: for image shapes that differ between the splits, for repeated or missing class
            names, and for a label without a class name.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        train_shape, test_shape = self.train.images.shape[1:], self.test.images.shape[1:]
        if train_shape != test_shape:
            raise DataError(
                f"{self.name}: training images are {_by(train_shape)} and test images "
                f"{_by(test_shape)} (height×width×channels); they must be equal: resize one split"
            )
        repeated = [name for name, count in Counter(self.class_names).items() if count > 1]
        if not self.class_names or repeated:
            raise DataError(
                f"{self.name}: class_names: got {self.class_names!r}; there must be at least one "
                f"and all must differ{f': rename {repeated[0]!r}' if repeated else ''}"
            )
        for split_name, split in (("train", self.train), ("test", self.test)):
            largest = int(split.labels.max())
            if largest >= len(self.class_names):
                raise DataError(
                    f"{self.name}: {split_name} labels go up to {largest}, but there are "
                    f"{len(self.class_names)} classes, so labels must lie in "
                    f"0..{len(self.class_names) - 1}: check that the labels belong to this data set"
                )

    def __repr__(self) -> str:
        shown = ", ".join(self.class_names[:10]) + (", …" if len(self.class_names) > 10 else "")
        return (
            f"Dataset({self.name!r}, train: {_size(self.train)}, test: {_size(self.test)}, "
            f"{len(self.class_names)} classes: {shown})"
        )


def _check_array(name: str, array: object, dtype: np.dtype, axes: str) -> None:
    if not isinstance(array, np.ndarray):
        raise DataError(
            f"{name}: got {type(array).__name__}; it must be a NumPy array of {dtype} with axes "
            f"({', '.join(axes)}): convert it with numpy.asarray"
        )
    if array.dtype != dtype or array.ndim != len(axes):
        raise DataError(
            f"{name}: got {array.dtype} of shape {array.shape}; it must be {dtype} with axes "
            f"({', '.join(axes)}): convert it with astype and reshape"
        )
    if 0 in array.shape:
        raise DataError(
            f"{name}: got shape {array.shape}; every axis of ({', '.join(axes)}) must have at "
            "least one entry: check that the source is not empty"
        )


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)


def _size(split: Split) -> str:
    return f"{len(split.images)} images of {_by(split.images.shape[1:])}"
