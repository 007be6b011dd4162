"""A data set restricted to some of its classes."""

from collections.abc import Sequence

import numpy as np

from convjax._checks import describe_value, near_match
from convjax.data.dataset import DataError, Dataset, Split


def select_classes(dataset: Dataset, classes: Sequence[str | int]) -> Dataset:
    """Returns the images of the given classes, as in `("3", "7")`.

    Images stay in file order; labels are renumbered in the order in which the classes are given.

    Args:
      dataset: the data set to restrict.
      classes: class names; an int means the class with that name, so 3 is the class "3".

    Returns:
      A data set whose `class_names` are the given ones.

    Raises:
      DataError: for no class, a class given twice, an unknown class, a bare string, and a split
        that has no image of the given classes.

    Examples:
      >>> import numpy as np
      >>> images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 2], np.int32)
      >>> split = Split(images, labels)
      >>> dataset = Dataset("digits", split, split, ("0", "1", "2"))
      >>> select_classes(dataset, ("2", "0")).train.labels.tolist()
      [1, 0]
    """
    if isinstance(classes, str):
        raise DataError(
            f"classes must be a sequence of names, got the string {classes!r}. Write "
            f"classes=({classes!r},)."
        )
    if not isinstance(classes, Sequence):
        raise DataError(
            f"classes must be a sequence of names, got {describe_value(classes)}. For one class "
            "write classes=(3,)."
        )
    names = tuple(str(name) for name in classes)
    available = ", ".join(dataset.class_names)
    if not names:
        raise DataError(
            "classes must have at least one name, got an empty sequence. Leave classes out to "
            f"keep all of {available}."
        )
    for index, name in enumerate(names):
        if name not in dataset.class_names:
            raise DataError(
                f"classes must be among {available} in {dataset.name!r}, got {name!r}"
                f"{near_match(name, dataset.class_names) or '.'}"
            )
        if name in names[:index]:
            raise DataError(
                f"classes must be different, got {name!r} twice in {names!r}. Remove the "
                "repetition."
            )
    # -1 marks the classes to leave out.
    renumbered = np.full(len(dataset.class_names), -1, np.int32)
    renumbered[[dataset.class_names.index(name) for name in names]] = np.arange(len(names))
    splits = {}
    for split_name, split in (("train", dataset.train), ("test", dataset.test)):
        labels = renumbered[split.labels]
        kept = labels >= 0
        if not kept.any():
            raise DataError(
                f"classes must have an image in each split, got {names!r}, of which the "
                f"{split_name} split of {dataset.name!r} has none. Choose other classes."
            )
        splits[split_name] = Split(split.images[kept], labels[kept])
    return Dataset(dataset.name, splits["train"], splits["test"], names)
