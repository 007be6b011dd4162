"""The tasks of the zoo: examples, loss, and what is reached on held-out examples."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.diagnosis_study.healthy import task_data as data
from experiments.diagnosis_study.healthy.architectures import MAP, TOKENS, VECTOR
from experiments.diagnosis_study.healthy.sequence_models import LENGTH
from experiments.diagnosis_study.healthy.task_data import Examples, HostArray, TaskSplit
from experiments.diagnosis_study.user_loops import batches_of

CLASSES = 10
Loss = Callable[[jax.Array, jax.Array], jax.Array]

# --- losses, each the mean over the batch ---------------------------------------------------------


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss of logits (..., K) and labels (...)."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def soft_cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss of logits (N, K) and probabilities (N, K)."""
    return jnp.mean(optax.softmax_cross_entropy(logits, y))


def smoothed_cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss of logits (N, K) and labels (N,) that are smoothed by 0.1."""
    smooth = optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), 0.1)
    return soft_cross_entropy(logits, smooth)


def binary_cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss of logits (..., 1) and targets (...), or of any logits and equal shapes."""
    logits = logits[..., 0] if logits.ndim > y.ndim else logits
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, y))


def squared_error(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss of outputs (..., 1) and targets (...), or of equal shapes."""
    outputs = outputs[..., 0] if outputs.ndim > y.ndim else outputs
    return jnp.mean((outputs - y) ** 2)


# --- scores on held-out examples: 1 is perfect, and `Goal.guessing` the best without inputs -------


def accuracy(outputs: HostArray, y: HostArray) -> float:
    """Returns the share of right classes, of logits (..., K) and labels (...)."""
    return float(np.mean(outputs.argmax(-1) == y))


def balanced_accuracy(outputs: HostArray, y: HostArray) -> float:
    """Returns the mean over outputs and both classes of the share of right ones; guessing is ½."""
    truth = y.reshape(len(y), -1) > 0.5
    right = (outputs.reshape(len(y), -1) > 0) == truth
    shares = [
        right[:, k][truth[:, k] == side].mean()
        for k in range(truth.shape[1])
        for side in (False, True)
    ]
    return float(np.mean(shares))


def explained(outputs: HostArray, y: HostArray) -> float:
    """Returns the explained share of the variance; guessing is 0."""
    outputs = outputs.reshape(y.shape)
    return float(1 - np.mean((outputs - y) ** 2) / np.mean((y - y.mean(0)) ** 2))


def overlap(outputs: HostArray, y: HostArray) -> float:
    """Returns intersection over union of the found and the true pixels."""
    found, truth = outputs[..., 0] > 0, y > 0.5
    return float(np.sum(found & truth) / np.sum(found | truth))


# --- batches --------------------------------------------------------------------------------------


def mixed_batches(
    arrays: tuple[HostArray, ...], *, size: int, steps: int, seed: int
) -> Iterator[tuple[jax.Array, ...]]:
    """Yields batches each of which is mixed with itself in another order (mixup).

    Args:
      arrays: images, and labels as probabilities.
      size: of a batch.
      steps: number of batches.
      seed: of the order and of the shares.

    References:
      Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization" (2018).
    """
    rng = np.random.default_rng(seed)
    for batch in batches_of(arrays, size=size, steps=steps, seed=seed):
        share, order = rng.beta(0.4, 0.4), rng.permutation(size)
        both = [(np.asarray(array), np.asarray(array)[order]) for array in batch]
        mixed = [np.asarray(share * a + (1 - share) * b, np.float32) for a, b in both]
        yield tuple(map(jnp.asarray, mixed))


# --- tasks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """What a training lowers, and what counts on held-out examples.

    Attributes:
      loss: of the network's outputs and a batch's targets.
      score: of outputs and targets of the held-out examples.
      guessing: the score of the best constant output.
      classes: whether each output is a class.
    """

    loss: Loss
    score: Callable[[HostArray, HostArray], float]
    guessing: float
    classes: bool = True


@dataclass(frozen=True)
class Task:
    """What a network learns.

    Attributes:
      name: of the task.
      outputs: of the network, K.
      data: returns the examples, given a seed.
      goal: the loss and the score.
      healthy: the score that a healthy training reaches at least.
      kind: of the outputs, as for `ZooArchitecture`.
      batches: yields those of a training.
    """

    name: str
    outputs: int
    data: Callable[[int], TaskSplit]
    goal: Goal
    healthy: float
    kind: str = VECTOR
    batches: Callable[..., Iterable[tuple[Any, ...]]] = batches_of


def _labels(_: HostArray, labels: HostArray) -> HostArray:
    return labels


def _one_hot(_: HostArray, labels: HostArray) -> HostArray:
    return np.eye(CLASSES, dtype=np.float32)[labels]


def _zeros(_: HostArray, labels: HostArray) -> HostArray:
    return (labels == 0).astype(np.float32)


def _pixels(pixels: HostArray, _: HostArray) -> HostArray:
    return pixels[..., 0]


def _threes_sevens(_: int) -> TaskSplit:
    return data.chosen(data.with_targets(_labels), (3, 7))


def _sevens(seed: int) -> TaskSplit:
    parts = [Examples(part.x, part.y.astype(np.float32)) for part in _threes_sevens(seed)]
    return TaskSplit(*parts)


def _with(targets: Any, *, scaled: bool = True) -> Callable[[int], TaskSplit]:
    return lambda _: data.with_targets(targets, scaled=scaled)


def _noisy(seed: int) -> TaskSplit:
    return data.noisy(data.with_targets(_labels), seed, amount=1.0)


def _reconstruction(_: int) -> TaskSplit:
    return data.small(data.with_targets(_pixels))


def _denoising(seed: int) -> TaskSplit:
    return data.noisy(_reconstruction(seed), seed, amount=0.7)


def _segmentation(seed: int) -> TaskSplit:
    parts = [Examples(x, (y > 0.4).astype(np.float32)) for x, y in _denoising(seed)]
    return TaskSplit(*parts)


def _properties(_: int) -> TaskSplit:
    return data.with_targets(lambda _, labels: data.properties(labels))


def _moments(several: bool) -> Callable[[int], TaskSplit]:
    return lambda _: data.moment_targets(several=several)


def _texts(length: int) -> Callable[[int], TaskSplit]:
    return lambda seed: data.language(seed, length=length)


_ten = Goal(cross_entropy, accuracy, 0.1)
_smoothed = Goal(smoothed_cross_entropy, accuracy, 0.1)
_soft = Goal(soft_cross_entropy, lambda outputs, y: accuracy(outputs, y.argmax(-1)), 0.1)
_two = Goal(cross_entropy, accuracy, 0.5)
_sigmoids = Goal(binary_cross_entropy, balanced_accuracy, 0.5, classes=False)
_regression = Goal(squared_error, explained, 0.0, classes=False)
_pixel_classes = Goal(binary_cross_entropy, overlap, 0.2, classes=False)
_probabilities = Goal(
    binary_cross_entropy, lambda outputs, y: explained(1 / (1 + np.exp(-outputs)), y), 0.0, False
)
_tokens, _kinds = Goal(cross_entropy, accuracy, 0.2), data.TOKEN_KINDS

TASKS: tuple[Task, ...] = (
    Task("ten digits", CLASSES, _with(_labels), _ten, 0.8),
    Task("three or seven", 2, _threes_sevens, _two, 0.93),
    Task("zero or not", 1, _with(_zeros), _sigmoids, 0.9),
    Task("label smoothing", CLASSES, _with(_labels), _smoothed, 0.8),
    Task("slant", 1, _moments(several=False), _regression, 0.6),
    Task("mixup", CLASSES, _with(_one_hot), _soft, 0.75, batches=mixed_batches),
    Task("properties of digits", 4, _properties, _sigmoids, 0.85),
    Task("digits from 0 to 1", CLASSES, _with(_labels, scaled=False), _ten, 0.8),
    Task("height, width, slant", 3, _moments(several=True), _regression, 0.5),
    Task("three or seven, one output", 1, _sevens, _sigmoids, 0.93),
    Task("noisy digits", CLASSES, _noisy, _ten, 0.7),
    Task("segmentation", 1, _segmentation, _pixel_classes, 0.6, MAP),
    Task("reconstruction", 1, _reconstruction, _regression, 0.5, MAP),
    Task("denoising", 1, _denoising, _regression, 0.4, MAP),
    Task("soft reconstruction", 1, _reconstruction, _probabilities, 0.45, MAP),
    Task("next token", _kinds, _texts(LENGTH), _tokens, 0.6, TOKENS),
    Task("next token, short texts", _kinds, _texts(16), _tokens, 0.55, TOKENS),
)
