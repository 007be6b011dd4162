"""The progress of a training: its steps, its smoothed loss, and the metrics of its evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

# fastai's average of the training loss, https://docs.fast.ai/learner.html#AvgSmoothLoss
SMOOTHING = 0.98


@dataclass
class Progress:
    """The progress of a training, as plain data.

    Attributes:
      steps: number of steps taken so far.
      average: the loss as fastai smooths it, before its start is corrected for.
      seconds, compile_seconds: spent since the last evaluation; seconds exclude compiling.
      metrics: a row for each evaluation so far, see `convjax.train.FitResult`.
    """

    steps: int = 0
    average: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)

    def take(self, losses: Float[np.ndarray, " T"]) -> None:
        """Counts T steps with these losses."""
        for loss in losses.astype(np.float64).tolist():
            self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.steps += len(losses)

    def spend(self, seconds: float, compile_seconds: float) -> None:
        """Counts seconds, of which `compile_seconds` went into compiling."""
        self.seconds += seconds - compile_seconds
        self.compile_seconds += compile_seconds

    def score(self, epoch: int, loss: Any, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Adds an evaluation on the test images and returns its row of metrics."""
        row = {
            "epoch": epoch,
            "step": self.steps,
            # fastai's average continues over the epochs; only its validation loss starts anew.
            "train_loss": self.average / (1 - SMOOTHING**self.steps),
            "valid_loss": float(loss),
            **{name: float(value) for name, value in metrics.items()},
            "seconds": round(self.seconds, 3),
            "compile_seconds": round(self.compile_seconds, 3),
        }
        self.seconds = self.compile_seconds = 0.0
        self.metrics.append(row)
        return row

    def is_best(self, loss: float, metrics: Mapping[str, float]) -> bool:
        """Returns whether an evaluation has the highest accuracy, or lowest loss, so far."""
        quality = metrics.get("accuracy", -loss)
        return all(quality > row.get("accuracy", -row["valid_loss"]) for row in self.metrics)
