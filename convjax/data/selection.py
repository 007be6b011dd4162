"""A data set restricted to some of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convjax._checks import near_match
from convjax.data.dataset import DataError, Dataset, Split


def select_classes(dataset: Dataset, classes: Sequence[str | int]) -> Dataset:
    """Keep only the images of the given classes, as in `("3", "7")`.

    Images stay in file order; labels are renumbered in the order in which the classes are given.

    Args:
        dataset: the data set to restrict.
        classes: class names; an int stands for the name it is written as, so 3 is the class "3".

    Returns:
        A data set whose `class_names` are the given ones.

    Raises:
        DataError: for no class, a class given twice, an unknown class, a bare string, and a split
            that has no image of the given classes.
    """
    if isinstance(classes, str):
        raise DataError(
            f"classes: got the string {classes!r}; a sequence of names is needed, or its letters "
            f"would be taken for classes: write classes=({classes!r},)"
        )
    if not isinstance(classes, Sequence):
        raise DataError(
            f"classes: got {classes!r:.80} of type {type(classes).__name__}; a sequence of names "
            "is needed: write classes=(3,) for one"
        )
    names = tuple(str(name) for name in classes)
    if not names:
        raise DataError(
            "classes: got an empty sequence; at least one class is needed: leave classes out to "
            f"keep all of {', '.join(dataset.class_names)}"
        )
    for index, name in enumerate(names):
        if name not in dataset.class_names:
            raise DataError(
                f"classes: got {name!r}, which {dataset.name!r} does not have; choose from "
                f"{', '.join(dataset.class_names)}{near_match(name, dataset.class_names)}"
            )
        if name in names[:index]:
            raise DataError(
                f"classes: got {name!r} twice in {names!r}; each class may be given once: "
                "remove the repetition"
            )
    # -1 marks the classes to leave out.
    renumbered = np.full(len(dataset.class_names), -1, np.int32)
    renumbered[[dataset.class_names.index(name) for name in names]] = np.arange(len(names))
    return Dataset(
        name=dataset.name,
        train=_restrict(dataset.train, renumbered, f"{dataset.name}: train", names),
        test=_restrict(dataset.test, renumbered, f"{dataset.name}: test", names),
        class_names=names,
    )


def _restrict(split: Split, renumbered: np.ndarray, where: str, names: tuple[str, ...]) -> Split:
    labels = renumbered[split.labels]
    kept = labels >= 0
    if not kept.any():
        raise DataError(
            f"{where}: got classes={names!r}, of which this split has no image; each split needs "
            "at least one: choose other classes"
        )
    return Split(images=split.images[kept], labels=labels[kept])
