"""One training: what it comes to, and the loop that leads there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from convjax.record import Record, concatenate
from convjax.step import State
from convjax.train import Images, Trainer
from experiments.observer import Observer
from experiments.setting import Setting


@dataclass(frozen=True)
class Outcome:
    """What one of many trainings came to, for comparisons.

    Attributes:
      metrics: per evaluation, of which an epoch has one unless the setting says otherwise: epoch,
        step, train_loss (smoothed), valid_loss, accuracy, seconds (of training and evaluation) and
        compile_seconds, which are not in them.
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
        """On the training images, at the end: what only trainings for comparisons measure."""
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
    """What a training takes.

    Attributes:
      orders: per epoch the indices of each batch, (steps, batch).
      table: the learning rate and momentum of each step.
    """

    trainer: Trainer
    network: nnx.Module
    train: Images
    test: Images
    orders: list[Any]
    table: dict[str, Any]


def fit(
    material: Material,
    setting: Setting,
    observer: Observer,
    on_score: Callable[[dict[str, Any], Sequence[Record]], None],
) -> tuple[State, Record]:
    """Trains, and scores as often as the setting says.

    Args:
      on_score: takes the metrics of each evaluation, and the records so far.

    Returns:
      (last state, record).
    """
    trainer, network, train, test, orders, table = material
    state = trainer.start(network)
    records: list[Record] = []
    done = 0
    for epoch, whole in enumerate(orders):
        of_epoch: list[Record] = []
        for order in np.array_split(whole, min(setting.scores, len(whole))):
            began, compiled = time.perf_counter(), trainer.compile_seconds
            rows = {name: column[done : done + len(order)] for name, column in table.items()}
            state, record = trainer.run(state, train, order, rows, on_steps=observer.steps)
            scores = trainer.evaluate(state, test)
            compile_seconds = trainer.compile_seconds - compiled
            seconds = time.perf_counter() - began - compile_seconds
            done += len(order)
            of_epoch.append(record)
            metrics = {
                "epoch": epoch,
                "step": done,
                # fastai starts its average anew with every epoch.
                "train_loss": float(concatenate(of_epoch).smoothed_loss()[-1]),
                "valid_loss": scores.loss,
                "accuracy": scores.accuracy,
                "seconds": round(seconds, 3),
                "compile_seconds": round(compile_seconds, 3),
            }
            observer.epoch(metrics)
            on_score(metrics, [*records, *of_epoch])
        records += of_epoch
    return state, concatenate(records)
