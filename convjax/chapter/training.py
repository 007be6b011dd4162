"""The results of a training."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from convjax.chapter.setting import Setting
from convjax.stats.record import Record


@dataclass(frozen=True)
class Outcome:
    """The outcome of one of many trainings, for comparisons.

    Attributes:
      setting, seed: of the training.
      metrics: per evaluation, as in `convjax.train.FitResult`.
      loss: of each step's batch before its update; empty where nobody asks.
    """

    setting: Setting
    seed: int
    metrics: list[dict[str, Any]]
    loss: Float[np.ndarray, " T"] = field(
        default_factory=lambda: np.zeros(0), kw_only=True, repr=False, compare=False
    )

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
