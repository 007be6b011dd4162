"""`Split` and `Dataset`: the containers that every loader returns, with checked arrays."""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from convjax._display import Displayed


class DataError(ValueError):
    """Data, or a request for data, breaks a rule that the message states."""


@dataclass(frozen=True, eq=False, repr=False)
class Split(Displayed):
    """Images and their labels, in file order.

    The arrays are kept as read-only views, because a data set is shared by everything that reads
    it. Copy them to change pixels.

    Attributes:
      images: (N, H, W, C) uint8, pixels from 0 to 255, at least one image; or float32 (N, …), such
        as vectors (N, F), which a training takes as they are.
      labels: (N,) int32, class indices from 0; or (N, …) float32 or int32 for another loss than the
        cross entropy of classes, such as values, or classes of pixels.

    Raises:
      DataError: for another type, dtype or number of axes, for an empty axis, for counts that
        differ, for floats that are not finite, and for a negative class.

    Examples:
      >>> import numpy as np
      >>> Split(np.zeros((2, 28, 28, 1), np.uint8), np.array([3, 7], np.int32))
      Split(2 images of 28×28×1)
    """

    images: UInt8[np.ndarray, "N H W C"] | Float32[np.ndarray, "N ..."]
    labels: Int32[np.ndarray, "N ..."] | Float32[np.ndarray, "N ..."]

    def __post_init__(self) -> None:
        if _is_float32(self.images):
            _check_floats("images", self.images, 2)
        else:
            _check_array("images", self.images, np.dtype(np.uint8), "NHWC")
        if _is_float32(self.labels):
            _check_floats("labels", self.labels, 1)
        elif getattr(self.labels, "ndim", 1) == 1:
            _check_array("labels", self.labels, np.dtype(np.int32), "N")
        else:
            axes = "NABCDEF"[: self.labels.ndim]
            _check_array("labels", self.labels, np.dtype(np.int32), axes)
        if len(self.images) != len(self.labels):
            raise DataError(
                f"labels must be one for each of the {len(self.images)} images, got "
                f"{len(self.labels)} labels. Check that both come from the same split."
            )
        if self.labels.ndim == 1 and self.labels.dtype == np.int32 and self.labels.min() < 0:
            raise DataError(
                f"labels must be class indices from 0, got {self.labels.min()}. Renumber them."
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

    Examples:
      >>> import numpy as np
      >>> images, labels = np.zeros((2, 28, 28, 1), np.uint8), np.array([0, 1], np.int32)
      >>> dataset = Dataset("digits", Split(images, labels), Split(images, labels), ("3", "7"))
      >>> dataset.class_names[dataset.train.labels[1]]
      '7'
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        check_splits(self.name, self.train, self.test, self.class_names)

    def __repr__(self) -> str:
        shown = ", ".join(self.class_names[:10]) + (", …" if len(self.class_names) > 10 else "")
        return (
            f"Dataset({self.name!r}, train: {_size(self.train)}, test: {_size(self.test)}, "
            f"{len(self.class_names)} classes: {shown})"
        )


@runtime_checkable
class _LabelledImages(Protocol):
    """A `Split`, or a stream."""

    @property
    def images(self) -> Any:
        """(N, H, W, C)."""

    @property
    def labels(self) -> Any:
        """(N,)."""


def check_splits(
    name: str, train: _LabelledImages, test: _LabelledImages, class_names: tuple[str, ...]
) -> None:
    """Checks that two splits and the names of their classes belong together.

    Raises:
      DataError: as `Dataset`.
    """
    train_shape, test_shape = train.images.shape[1:], test.images.shape[1:]
    if train_shape != test_shape:
        raise DataError(
            f"test images must be {dimensions(train_shape)} (height×width×channels) like the "
            f"training images, got {dimensions(test_shape)} in {name}. Resize one split."
        )
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if not class_names or repeated:
        raise DataError(
            f"class_names must be at least one, all different, got {class_names!r} in "
            f"{name}. {f'Rename {repeated[0]!r}.' if repeated else 'Name every class.'}"
        )
    for split_name, split in (("train", train), ("test", test)):
        if split.labels.ndim != 1 or split.labels.dtype != np.int32:
            raise DataError(
                f"{split_name} labels must be one class index per image, got "
                f"{split.labels.dtype} of the shape {split.labels.shape} in {name}. Train "
                "on the splits themselves: convjax.Images.put(split)."
            )
        largest = int(split.labels.max())
        if largest >= len(class_names):
            raise DataError(
                f"{split_name} labels must be below {len(class_names)}, the number of "
                f"class names, got {largest} in {name}. Check that the labels belong to "
                "this data set."
            )


def dimensions(shape: tuple[int, ...]) -> str:
    """Returns a shape as in "28×28×1"."""
    return "×".join(map(str, shape))


def _is_float32(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.float32


def _check_floats(name: str, array: np.ndarray, axes: int) -> None:
    if array.ndim < axes or 0 in array.shape:
        raise DataError(
            f"{name} of float32 must have {axes} axes or more, none of them empty, got the shape "
            f"{array.shape}. The first is that of the examples."
        )
    if not np.isfinite(array).all():
        raise DataError(
            f"{name} must be finite, got {np.count_nonzero(~np.isfinite(array)):,} numbers that "
            "are not. Replace them."
        )


def _check_array(name: str, array: object, dtype: np.dtype, axes: str) -> None:
    rule = f"{dtype} with axes ({', '.join(axes)})"
    if not isinstance(array, np.ndarray):
        raise DataError(
            f"{name} must be a NumPy array of {rule}, got {type(array).__name__}. Convert it with "
            "numpy.asarray."
        )
    if array.dtype != dtype or array.ndim != len(axes):
        floats = np.issubdtype(array.dtype, np.floating) or array.dtype == np.bool_
        fix = "astype(np.float32)" if floats else "astype and reshape"
        raise DataError(
            f"{name} must be {rule}, or float32, got {array.dtype} of shape {array.shape}. Convert "
            f"it with {fix}."
        )
    if 0 in array.shape:
        raise DataError(
            f"{name} must have at least one entry on each axis ({', '.join(axes)}), got the shape "
            f"{array.shape}. Check that the source is not empty."
        )


def _size(split: Split) -> str:
    return f"{len(split.images)} images of {dimensions(split.images.shape[1:])}"
