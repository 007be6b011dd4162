"""The results of a training."""

from dataclasses import dataclass
from typing import Any

from convjax.chapter.setting import Setting
from convjax.stats.record import Record


@dataclass(frozen=True)
class Outcome:
    """The outcome of one of many trainings, for comparisons.

    Attributes:
      setting, seed: of the training.
      metrics: per evaluation, as in `convjax.train.FitResult`.
    """

    setting: Setting
    seed: int
    metrics: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """The accuracy on the test images at the end."""
        return float(self.metrics[-1]["accuracy"])

    @property
    def train_accuracy(self) -> float:
        """The accuracy on the training images at the end."""
        return float(self.metrics[-1]["train_accuracy"])


@dataclass(frozen=True)
class Training(Outcome):
    """A training whose layers were watched.

    Attributes:
      record: of every step.
      model: the trained network, in evaluation mode.
    """

    record: Record
    model: Any
