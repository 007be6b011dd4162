"""The data sets that have a name, and near matches for names that are not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

DIGITS = tuple("0123456789")

# In the order of the labels, as their authors publish them.
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist5k": DIGITS,
    "mnist": DIGITS,
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
}

DATASET_NAMES = tuple(CLASS_NAMES)


def near_match(word: str, choices: Iterable[str]) -> str:
    """A sentence fragment that suggests the closest choice.

    Args:
        word: what was asked for.
        choices: what there is.

    Returns:
        `"; did you mean 'mnist'?"`, or an empty string where nothing is close.
    """
    # Case is the commonest slip, and difflib counts every letter of "MNIST" as different.
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
