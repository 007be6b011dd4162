"""The description of a healthy training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.diagnosis_study.user_loops import Trained


@dataclass(frozen=True)
class HealthyTraining:
    """A training without a fault, however odd it looks.

    Attributes:
      architecture: such as "vit".
      task: such as "digits".
      optimizer: such as "adamw, cosine".
      train: returns a training, given a seed.
      healthy: what it reaches at least, as `Trained.reached`.
      options: of `convjax.diagnose`, such as {"classes": 0}; few loops need any.
    """

    architecture: str
    task: str
    optimizer: str
    train: Callable[[int], Trained]
    healthy: float
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Names the training by what it consists of."""
        return f"{self.architecture}, {self.task}, {self.optimizer}"
