"""One training: what it comes to, and what it is made of."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from convjax.data import Dataset
from convjax.stats.record import Record
from convjax.train.device_data import Images
from experiments.harness.setting import Setting


@dataclass(frozen=True)
class Outcome:
    """What one of many trainings came to, for comparisons.

    Attributes:
      metrics: per evaluation, as `convjax.train._fit.FitResult` has them.
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


class DeviceDataset(NamedTuple):
    """A data set, and its images on the device."""

    dataset: Dataset
    train: Images
    test: Images
