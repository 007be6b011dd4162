"""The tasks of the reported faults about data, labels, losses and outputs, and their scores."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from convjax.data import load
from experiments.diagnosis_study.user_loops import HostArray

SEED = 5  # of the synthetic tasks, which are the same for every seed of a training


class Task(NamedTuple):
    """Examples and what to predict for them.

    Attributes:
      x: examples to train on.
      y: their labels or targets.
      test_x: other examples.
      test_y: their labels or targets.
    """

    x: HostArray
    y: HostArray
    test_x: HostArray
    test_y: HostArray


def _split(x: HostArray, y: HostArray, tests: int) -> Task:
    return Task(x[:-tests], y[:-tests], x[-tests:], y[-tests:])


@cache
def digits() -> Task:
    """Returns handwritten digits (N, 28, 28, 1) in 0 to 1 and labels 0 to 9."""
    data = load("mnist5k")
    scale = np.float32(1 / 255)
    return Task(
        data.train.images * scale, data.train.labels, data.test.images * scale, data.test.labels
    )


@cache
def chosen_digits(*classes: int) -> Task:
    """Returns the digits of some classes, with labels 0, 1, … in the order given."""
    task = digits()

    def chosen(x: HostArray, y: HostArray) -> tuple[HostArray, HostArray]:
        kept = np.isin(y, classes)
        labels = np.array([classes.index(label) for label in y[kept]], np.int32)
        return x[kept], labels

    return Task(*chosen(task.x, task.y), *chosen(task.test_x, task.test_y))


@cache
def houses(examples: int = 2400) -> Task:
    """Returns tables of 8 standard normal features, and a target of mean 0 and deviation 1."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(examples, 8)).astype(np.float32)
    y = 2 * x[:, 0] + x[:, 1] * x[:, 2] + np.sin(2 * x[:, 3]) - np.abs(x[:, 4])
    y += 0.1 * rng.normal(size=examples)
    return _split(x, ((y - y.mean()) / y.std()).astype(np.float32), 400)


@cache
def strokes() -> Task:
    """Returns noisy digits (N, 14, 14, 1), and per pixel whether it belongs to the stroke."""
    task = digits()
    rng = np.random.default_rng(SEED)

    def noisy(images: HostArray) -> tuple[HostArray, HostArray]:
        small = images.reshape(len(images), 14, 2, 14, 2).mean((2, 4))
        x = (0.7 * small + 0.15 * rng.normal(size=small.shape)).astype(np.float32)
        return x[..., None], (small > 0.3).astype(np.int32)

    return Task(*noisy(task.x), *noisy(task.test_x))


@cache
def tones() -> Task:
    """Returns noisy waves (N, 96) of random loudness, and which of four frequencies they have."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(4, size=2400).astype(np.int32)
    time = np.arange(96)
    phase = rng.uniform(0, 2 * np.pi, size=(len(y), 1))
    waves = np.sin(2 * np.pi * time * (0.04 + 0.03 * y[:, None]) + phase)
    waves += 0.5 * rng.normal(size=waves.shape)
    return _split((rng.uniform(0.1, 2, (len(y), 1)) * waves).astype(np.float32), y, 400)


@cache
def sentences() -> Task:
    """Returns sentences of 12 words out of 60 (N, 12), and which of four topics they have."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(4, size=2400).astype(np.int32)
    often = 1 / (5 + np.arange(60))
    words = rng.choice(60, size=(len(y), 12), p=often / often.sum())
    of_topic = 8 * y[:, None] + rng.integers(8, size=words.shape)
    return _split(np.where(rng.random(words.shape) < 0.4, of_topic, words).astype(np.int32), y, 400)


# --- scores ----------------------------------------------------------------------------------


def accuracy(logits: Any, labels: HostArray) -> float:
    """Returns the share of labels with the greatest logit along the last axis."""
    return float(np.mean(np.asarray(logits).argmax(-1) == labels))


def binary_accuracy(logits: Any, labels: HostArray) -> float:
    """Returns the share of labels 0 or 1 whose logit has the right sign."""
    return float(np.mean((np.asarray(logits).reshape(labels.shape) > 0) == labels))


def recalled(logits: Any, labels: HostArray) -> float:
    """Returns the mean of the shares of the labels 0 and of the labels 1 that are found."""
    right = (np.asarray(logits).reshape(labels.shape) > 0) == labels
    return float((right[labels == 0].mean() + right[labels == 1].mean()) / 2)


def overlap(logits: Any, masks: HostArray) -> float:
    """Returns the pixels above 0 that belong to a mask, as a share of those in either."""
    found = np.asarray(logits).reshape(masks.shape) > 0
    return float(np.sum(found & (masks > 0)) / max(np.sum(found | (masks > 0)), 1))


def explained(predictions: Any, targets: HostArray) -> float:
    """Returns the share of the targets' variance that is explained, the mean over outputs."""
    errors = np.asarray(predictions, np.float64).reshape(targets.shape) - targets
    return float(np.mean(1 - np.mean(errors**2, 0) / np.var(targets, 0)))
