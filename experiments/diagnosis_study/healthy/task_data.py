"""The examples of the zoo's tasks, from the embedded digits or drawn from a seed."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from convjax.data import load, normalization
from experiments.diagnosis_study.user_loops import HostArray


class Examples(NamedTuple):
    """Inputs and targets, with the examples first."""

    x: HostArray
    y: HostArray


class TaskSplit(NamedTuple):
    """Examples to train on, and held-out ones."""

    train: Examples
    test: Examples


@cache
def digits() -> TaskSplit:
    """Returns the embedded digits: pixels (N, 28, 28, 1) from 0 to 1, and labels (N,)."""
    dataset = load("mnist5k")
    parts = [
        Examples((part.images / 255).astype(np.float32), part.labels.astype(np.int32))
        for part in (dataset.train, dataset.test)
    ]
    return TaskSplit(*parts)


@cache
def normalized_digits() -> TaskSplit:
    """Returns the digits with pixels of mean 0 and standard deviation 1."""
    mean, std = normalization(load("mnist5k").train.images)
    parts = [Examples(((part.x - mean) / std).astype(np.float32), part.y) for part in digits()]
    return TaskSplit(*parts)


def with_targets(targets: Any, *, scaled: bool = True) -> TaskSplit:
    """Returns normalised images with the targets that a function makes of images and labels.

    Args:
      targets: given pixels (N, 28, 28, 1) from 0 to 1 and labels (N,), returns an array (N, ...).
      scaled: False keeps the pixels from 0 to 1.
    """
    inputs = normalized_digits() if scaled else digits()
    parts = [
        Examples(part.x, targets(pixels, labels))
        for part, (pixels, labels) in zip(inputs, digits(), strict=True)
    ]
    return TaskSplit(*parts)


def small(split: TaskSplit) -> TaskSplit:
    """Returns images and targets of each pixel (N, 28, 28, ...) as (N, 16, 16, ...).

    Each pixel is the mean of four; two more rows and columns repeat the border.
    """

    def halved(values: HostArray) -> HostArray:
        n, rest = len(values), values.shape[3:]
        means = values.reshape(n, 14, 2, 14, 2, *rest).mean((2, 4))
        return np.pad(means, ((0, 0), (1, 1), (1, 1), *((0, 0) for _ in rest)), "edge")

    return TaskSplit(*(Examples(halved(part.x), halved(part.y)) for part in split))


def chosen(split: TaskSplit, classes: tuple[int, ...]) -> TaskSplit:
    """Returns the images of some digits, with the number of the digit among these as label."""
    parts = []
    for part in split:
        kept = np.isin(part.y, classes)
        labels = np.searchsorted(classes, part.y[kept]).astype(np.int32)
        parts.append(Examples(part.x[kept], labels))
    return TaskSplit(*parts)


def properties(labels: HostArray) -> HostArray:
    """Returns whether each digit is even, above 4, prime, or has a closed loop: (N, 4), 0 or 1."""
    sets = ((0, 2, 4, 6, 8), (5, 6, 7, 8, 9), (2, 3, 5, 7), (0, 6, 8, 9))
    return np.stack([np.isin(labels, found) for found in sets], -1).astype(np.float32)


def moments(pixels: HostArray) -> HostArray:
    """Returns the height, the width and the slant of digits (N, 28, 28, 1): (N, 3).

    They are the standard deviations of the ink along both axes and its correlation.
    """
    ink = pixels[..., 0] / pixels.sum((1, 2, 3))[:, None, None]
    positions = np.arange(28) - 13.5
    rows, columns = ink.sum(2), ink.sum(1)
    row, column = rows @ positions, columns @ positions
    height = np.sqrt(rows @ positions**2 - row**2)
    width = np.sqrt(columns @ positions**2 - column**2)
    product = np.einsum("nij,i,j->n", ink, positions, positions) - row * column
    return np.stack([height, width, product / (height * width)], -1).astype(np.float32)


def moment_targets(*, several: bool) -> TaskSplit:
    """Returns digits with their slant (N,), or with all `moments` (N, 3), of mean 0 and std 1."""
    split = with_targets(lambda pixels, _: moments(pixels))
    mean, std = split.train.y.mean(0), split.train.y.std(0)
    parts = []
    for part in split:
        targets = (part.y - mean) / std
        parts.append(Examples(part.x, targets if several else targets[:, 2]))
    return TaskSplit(*parts)


def noisy(split: TaskSplit, seed: int, *, amount: float) -> TaskSplit:
    """Returns examples whose inputs have noise of a standard deviation."""
    rng = np.random.default_rng(seed)
    parts = []
    for part in split:
        noise = amount * rng.standard_normal(part.x.shape, np.float32)
        parts.append(Examples(part.x + noise, part.y))
    return TaskSplit(*parts)


WORDS, LETTERS, SPACE, FOLLOWERS = 12, 15, 15, 3  # of the language; a space is the last token
TOKEN_KINDS = LETTERS + 1


def language(seed: int, *, length: int, texts: int = 2000, held_out: int = 250) -> TaskSplit:
    """Returns texts of a language that a seed draws: tokens (N, T) and the next tokens (N, T).

    It has words of three to five letters. Each word is followed by one of three. So a letter within
    a word is nearly sure, and the first of a word is not.
    """
    rng = np.random.default_rng(seed)
    words = [rng.integers(LETTERS, size=rng.integers(3, 6)) for _ in range(WORDS)]
    followers = [rng.choice(WORDS, FOLLOWERS, replace=False) for _ in range(WORDS)]
    tokens: list[int] = []
    word = 0
    while len(tokens) < (texts + held_out) * (length + 1):
        tokens += [*words[word].tolist(), SPACE]
        word = rng.choice(followers[word])
    rows = np.array(tokens[: (texts + held_out) * (length + 1)], np.int32).reshape(-1, length + 1)
    x, y = rows[:, :-1], rows[:, 1:]
    return TaskSplit(Examples(x[:texts], y[:texts]), Examples(x[texts:], y[texts:]))
