"""The predictions of a trained network for the test images, and its worst errors with images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Integer, Num, UInt8

from convjax._checks import check_type
from convjax.data import Split
from convjax.io.atomic import atomic_write
from convjax.io.npz import Arrays, NpzError, read_npz
from convjax.train.evaluation import SCORED_AT_ONCE
from convjax.train.step import TrainState
from convjax.train.trainer import Trainer

_FORMAT = 1

# Bytes that a file may unfold to: ten million test images.
_LIMIT = 256 << 20
_NAMES = "class_names"


class PredictionsError(ValueError):
    """A file is not a complete predictions file."""


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """The answers to N test images, and the K worst errors, the largest loss first.

    Attributes:
      labels: the class of each image.
      answers: the predicted class of each image.
      losses: the loss of each image.
      worst: the indices of the worst errors among the N images.
      images: the images of the worst errors.
      label_probabilities: the probabilities of their right classes.
      answer_probabilities: the probabilities of their predicted classes.
      class_names: the name of class i at index i.

    Examples:
      >>> import numpy as np
      >>> from convjax.runs import Predictions
      >>> found = Predictions(
      ...     labels=np.array([0, 1, 1]),
      ...     answers=np.array([0, 1, 0]),
      ...     losses=np.array([0.1, 0.2, 1.5]),
      ...     worst=np.array([2]),
      ...     images=np.zeros((1, 2, 2, 1), np.uint8),
      ...     label_probabilities=np.array([0.2]),
      ...     answer_probabilities=np.array([0.8]),
      ...     class_names=("three", "seven"),
      ... )
      >>> found
      Predictions(2 of 3 correct, 2 classes, 1 errors with images)
      >>> found.confusion.tolist()
      [[1, 0], [1, 1]]
    """

    labels: Integer[np.ndarray, " N"]
    answers: Integer[np.ndarray, " N"]
    losses: Float[np.ndarray, " N"]
    worst: Integer[np.ndarray, " K"]
    images: UInt8[np.ndarray, "K H W C"]
    label_probabilities: Float[np.ndarray, " K"]
    answer_probabilities: Float[np.ndarray, " K"]
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Predictions({self.correct} of {len(self.labels)} correct, "
            f"{len(self.class_names)} classes, {len(self.worst)} errors with images)"
        )

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        state: TrainState,
        split: Split,
        class_names: Sequence[str],
        *,
        worst: int = 32,
        batch_size: int = SCORED_AT_ONCE,
    ) -> "Predictions":
        """Returns the predictions for every image of a split, in evaluation mode.

        The answer is the class of the largest logit; a single logit answers 1 where it is positive,
        and its sigmoid is the probability of 1. A loss that is NaN counts as the largest.

        Args:
          trainer: the trainer of the network.
          state: the trained state.
          split: the test images and labels.
          class_names: the name of each class.
          worst: how many of the wrong answers are kept, at most.
          batch_size: images at a time; it bounds the memory and changes nothing else.

        Raises:
          TypeError: if trainer or split are of another type.
          ValueError: if worst is below 0 or batch_size below 1, there are fewer class names than
            labels or logits need, or the state was donated to an earlier run.
        """
        check_type("trainer", trainer, Trainer, "It is what trained the state.")
        check_type("split", split, Split, "convjax.data.load(name).test is one.")
        if worst < 0:
            raise ValueError(f"worst must be at least 0, got {worst}. 32 is the default.")
        if batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, got {batch_size}. 1000 is the default."
            )
        logits = _logits(trainer, state, split.images, batch_size)
        labels = np.asarray(split.labels, np.int32)
        outputs = max(logits.shape[1], 2)
        if len(class_names) < outputs or labels.max() >= outputs:
            raise ValueError(
                f"class_names must name every class, got {len(class_names)} for "
                f"{logits.shape[1]} logits and labels up to {labels.max()}. A data set has them "
                "as class_names."
            )
        of_each = trainer.step.losses(jnp.asarray(logits), jnp.asarray(labels))
        losses = np.asarray(of_each, np.float32)
        if logits.shape[1] == 1:
            # softmax([0, z]) is (1 − sigmoid(z), sigmoid(z)), and its larger one is 1 where z > 0.
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        answers = logits.argmax(1).astype(np.int32)
        wrong = np.flatnonzero(answers != labels)
        # Stable, so that equal losses stay in the order of the images.
        largest = np.argsort(-np.where(np.isnan(losses), np.inf, losses)[wrong], kind="stable")
        kept = wrong[largest][:worst]
        probabilities = np.asarray(jax.nn.softmax(logits[kept], axis=-1), np.float32)
        rows = np.arange(len(kept))
        return cls(
            labels,
            answers,
            losses,
            kept.astype(np.int32),
            split.images[kept],
            probabilities[rows, labels[kept]],
            probabilities[rows, answers[kept]],
            tuple(map(str, class_names)),
        )

    @property
    def correct(self) -> int:
        """The number of answers that are right."""
        return int((self.labels == self.answers).sum())

    @property
    def confusion(self) -> Int[np.ndarray, "C C"]:
        """The number of answers by label and answer: [label, answer]."""
        classes = len(self.class_names)
        # Unsigned integers of 64 bits, as other programs may save them, would become floats.
        cells = self.labels.astype(np.int64) * classes + self.answers.astype(np.int64)
        return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the predictions to an .npz file, atomically."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays[_NAMES] = np.array(self.class_names, dtype=np.str_)
        with atomic_write(path) as file:
            np.savez_compressed(file, format=np.int64(_FORMAT), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Predictions":
        """Reads predictions that `save` wrote. Nothing in the file is executed.

        Raises:
          FileNotFoundError: if there is no such file.
          PredictionsError: if the file is damaged or is not a predictions file.
        """

        def check(found: Arrays) -> None:
            missing = [name for name in ("format", *_ARRAYS, _NAMES) if name not in found]
            if missing:
                raise PredictionsError(
                    f"{path} is not a predictions file: {missing[0]} is missing. Train again."
                )
            if found["format"].ndim or found["format"].item() != _FORMAT:
                raise PredictionsError(
                    f"{path} has the predictions' format {found['format']!s:.40}, this version "
                    f"reads {_FORMAT}. Read it with the version that wrote it, or train again."
                )
            if problem := _problem(found):
                raise PredictionsError(
                    f"{path} is not a complete predictions file: {problem}. Train again."
                )

        try:
            arrays = read_npz(path, limit=_LIMIT, check=check)
        except NpzError as error:
            raise PredictionsError(
                f"{path} is not a complete predictions file: {error}. Train again."
            ) from error
        check(arrays)
        return cls(
            **{name: arrays[name] for name in _ARRAYS},
            class_names=tuple(map(str, arrays[_NAMES])),
        )


_ARRAYS = tuple(field.name for field in fields(Predictions) if field.name != _NAMES)


def _logits(
    trainer: Trainer, state: TrainState, images: Num[np.ndarray, "N H W C"], batch_size: int
) -> Float[np.ndarray, "N C"]:
    """Returns the logits, computed in batches."""
    size = min(batch_size, len(images))
    found = []
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        # A last batch of another length would be compiled for this one use.
        filled = batch[np.arange(size) % len(batch)]
        found.append(np.asarray(trainer.predict(state, filled))[: len(batch)])
    # Not bfloat16, for which NumPy has neither argmax nor files.
    return np.concatenate(found).astype(np.float32)


def _problem(arrays: Arrays) -> str | None:
    """Returns what is wrong with the arrays of a file, or None."""
    examples, kept, classes = (arrays[name].size for name in ("labels", "worst", _NAMES))
    # For each array: length, kinds of dtype, and the exclusive upper bound of its values.
    rules: dict[str, tuple[int, str, int | None]] = {
        "labels": (examples, "iu", classes),
        "answers": (examples, "iu", classes),
        "losses": (examples, "f", None),
        "worst": (kept, "iu", examples),
        "label_probabilities": (kept, "f", None),
        "answer_probabilities": (kept, "f", None),
        _NAMES: (classes, "U", None),
    }
    for name, (length, kinds, below) in rules.items():
        array = arrays[name]
        if array.shape != (length,) or array.dtype.kind not in kinds:
            return f"{name} is {array.dtype} of the shape {array.shape}, and not ({length},)"
        if below is not None and length and not 0 <= array.min() <= array.max() < below:
            return f"{name} must lie in 0..{below - 1}, but has {array.min()} to {array.max()}"
    images = arrays["images"]
    fits = images.dtype == np.uint8 and images.ndim == 4 and len(images) == kept
    if fits and 0 not in images.shape[1:]:
        return None
    return f"images are {images.dtype} of the shape {images.shape}, not uint8 ({kept}, H, W, C)"
