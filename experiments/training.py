"""One training: what it comes to, and the loop that leads there."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from convjax.data import Dataset
from convjax.growing import concatenate
from convjax.record import Record
from convjax.step import State
from convjax.train import Images, Trainer
from experiments.setting import Setting


@dataclass(frozen=True)
class Outcome:
    """What one of many trainings came to, for comparisons.

    Attributes:
      metrics: per evaluation, of which an epoch has one unless the setting says otherwise: epoch,
        step, train_loss (smoothed), valid_loss, accuracy, seconds (of training and evaluation) and
        compile_seconds, which are not in them; the last has train_accuracy, too.
    """

    setting: Setting
    seed: int
    metrics: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """On the test images, at the end."""
        return float(self.metrics[-1]["accuracy"])

    @property
    def train_accuracy(self) -> float:
        """On the training images, at the end."""
        return float(self.metrics[-1]["train_accuracy"])


@dataclass(frozen=True)
class Training(Outcome):
    """A training whose layers were watched.

    Attributes:
      model: the trained network, in evaluation mode.
    """

    record: Record
    model: Any


class Material(NamedTuple):
    """A data set, and its images on the device."""

    dataset: Dataset
    train: Images
    test: Images


def fit(
    trainer: Trainer,
    network: nnx.Module,
    material: Material,
    orders: Sequence[Sequence[Any]],
    table: Mapping[str, Any],
    *,
    on_score: Callable[[dict[str, Any], Sequence[Record]], None],
    on_steps: Callable[[int], None],
) -> tuple[State, Record]:
    """Trains, and scores after each part of each epoch.

    Args:
      orders: for each epoch its parts, each the indices of its batches, (steps, batch).
      table: the learning rate and momentum of each step, (T,).
      on_score: takes the metrics of each evaluation, and the records so far.
      on_steps: as for `Trainer.run`.

    Returns:
      (last state, record).
    """
    state = trainer.start(network)
    records: list[Record] = []
    done, steps = 0, sum(len(order) for parts in orders for order in parts)
    for epoch, parts in enumerate(orders):
        for order in parts:
            began, compiled = time.perf_counter(), trainer.compile_seconds
            rows = {name: column[done : done + len(order)] for name, column in table.items()}
            # A row for every step: an epoch of the chapter is short enough.
            state, record = trainer.run(
                state, material.train, order, rows, rows=len(order), on_steps=on_steps
            )
            scores = trainer.evaluate(state, material.test)
            compile_seconds = trainer.compile_seconds - compiled
            seconds = time.perf_counter() - began - compile_seconds
            done += len(order)
            records.append(record)
            metrics = metrics_row(
                epoch, records, (scores.loss, scores.accuracy), seconds, compile_seconds
            )
            if done == steps:
                metrics["train_accuracy"] = trainer.evaluate(state, material.train).accuracy
            on_score(metrics, records)
    return state, concatenate(records)


def metrics_row(
    epoch: int,
    records: Sequence[Record],
    scores: tuple[float, float],
    seconds: float,
    compile_seconds: float,
) -> dict[str, Any]:
    """Returns the metrics of an evaluation.

    Args:
      records: of all steps so far.
      scores: loss and accuracy on the test images.
      seconds, compile_seconds: since the evaluation before.
    """
    so_far = concatenate(records)
    return {
        "epoch": epoch,
        "step": so_far.steps,
        # fastai's average goes on over the epochs; only the validation starts anew.
        "train_loss": float(so_far.smoothed_loss()[-1]),
        "valid_loss": float(scores[0]),
        "accuracy": float(scores[1]),
        "seconds": round(seconds, 3),
        "compile_seconds": round(compile_seconds, 3),
    }


def in_parts(order: Any, parts: int) -> list[Any]:
    """Returns the batches of an epoch, (steps, …), in parts of nearly the same length."""
    return np.array_split(order, min(parts, len(order)))
