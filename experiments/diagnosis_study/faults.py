"""The specification of a short training, and the faults that can be injected into it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from experiments.diagnosis_study.networks import ARCHITECTURES, Architecture

# A label of class + 10·k multiplies the loss of its example by WEIGHTS[k]: 3000 represents a
# corrupt image, NaN one whose pixels are not numbers.
WEIGHTS = (1.0, 3000.0, np.nan)
STEPS = 200


@dataclass(frozen=True)
class TrainingSpec:
    """One training, with everything that a fault or a suggested change may change.

    Attributes:
      architecture: a key of `experiments.diagnosis_study.networks.ARCHITECTURES`.
      seed: of the parameters, the order of the images and the random choices of a fault.
      optimizer: "adam" or "sgd".
      rate: factor on the architecture's healthy learning rate.
      schedule: "constant", "one-cycle", "long-warm-up" or "bursts".
      gain: factor on all initial kernels.
      sleep: added to the bias of the architecture's hidden layer.
      frozen: whether the second kernel learns at a millionth of the rate.
      fast: whether the second kernel learns at 300 times the rate.
      raw: whether the pixels are 0 to 255 instead of normalised.
      labels: "true", "shuffled" or "constant".
      bad: index in WEIGHTS of the factor of the marked examples.
      lag: whether batch norm's running statistics hardly move.
    """

    architecture: str
    seed: int
    optimizer: str = "adam"
    batch_size: int = 64
    steps: int = STEPS
    rate: float = 1.0
    schedule: str = "constant"
    gain: float = 1.0
    sleep: float = 0.0
    frozen: bool = False
    fast: bool = False
    raw: bool = False
    labels: str = "true"
    bad: int = 0
    lag: bool = False

    @property
    def network(self) -> Architecture:
        """The architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def structure(self) -> "TrainingSpec":
        """The specification with the defaults of all fields that a program is independent of."""
        return TrainingSpec(
            self.architecture,
            0,
            self.optimizer,
            frozen=self.frozen,
            fast=self.fast,
            raw=self.raw,
            lag=self.lag,
        )

    @property
    def group(self) -> str:
        """A sort key: specifications of one structure follow each other."""
        return str(self.structure)


class Fault(NamedTuple):
    """A fault.

    Attributes:
      symptom: that the diagnosis should find.
      inject: returns a specification with the fault.
      fits: whether the fault applies to a specification.
    """

    symptom: str
    inject: Callable[[TrainingSpec, np.random.Generator], TrainingSpec]
    fits: Callable[[TrainingSpec], bool] = lambda plan: True


def _relu(plan: TrainingSpec) -> bool:
    return plan.network.nonlinearity == "relu"


def _plain(plan: TrainingSpec) -> bool:
    return _relu(plan) and not plan.network.normed


def _plain_adam(plan: TrainingSpec) -> bool:
    return _plain(plan) and plan.optimizer == "adam"


def _tanh(plan: TrainingSpec) -> bool:
    return plan.network.nonlinearity == "tanh"


def _batch_norm(plan: TrainingSpec) -> bool:
    return plan.network.batch_norm


FAULTS: dict[str, Fault] = {
    "raw pixels": Fault("inputs not normalised", lambda plan, rng: replace(plan, raw=True)),
    "constant labels": Fault("labels constant", lambda plan, rng: replace(plan, labels="constant")),
    "zero weights": Fault("zero weights", lambda plan, rng: replace(plan, gain=0.0), _plain),
    "large weights, tanh": Fault(
        "saturation", lambda plan, rng: replace(plan, gain=float(rng.uniform(8, 20))), _tanh
    ),
    "large weights": Fault(
        "exploding activations",
        lambda plan, rng: replace(plan, gain=float(rng.uniform(8, 20))),
        _plain,
    ),
    "small weights": Fault(
        "vanishing gradients",
        lambda plan, rng: replace(plan, gain=float(rng.uniform(0.02, 0.1))),
        _plain,
    ),
    "deep sigmoids": Fault(
        "vanishing gradients", lambda plan, rng: replace(plan, architecture="sigmoid"), _tanh
    ),
    "fast kernel": Fault("update too large", lambda plan, rng: replace(plan, fast=True)),
    "bursts of the rate": Fault(
        "collapse", lambda plan, rng: replace(plan, schedule="bursts"), _plain_adam
    ),
    "high rate": Fault(
        "learning rate too high",
        lambda plan, rng: replace(plan, rate=float(rng.uniform(100, 300))),
    ),
    "outliers": Fault("exploding gradients", lambda plan, rng: replace(plan, bad=1)),
    "broken images": Fault("loss not finite", lambda plan, rng: replace(plan, bad=2)),
    "sleeping layer": Fault(
        "dead layer", lambda plan, rng: replace(plan, sleep=-float(rng.uniform(10, 30))), _relu
    ),
    "frozen kernel": Fault("update too small", lambda plan, rng: replace(plan, frozen=True)),
    "low rate": Fault(
        "learning rate too low",
        lambda plan, rng: replace(plan, rate=float(rng.uniform(1e-4, 1e-3))),
    ),
    "lagging statistics": Fault(
        "batch-norm statistics", lambda plan, rng: replace(plan, lag=True), _batch_norm
    ),
    "shuffled labels": Fault(
        "inputs and labels do not match", lambda plan, rng: replace(plan, labels="shuffled")
    ),
}


def _less_steep(plan: TrainingSpec) -> TrainingSpec:
    """Returns the specification with initial weights and an activation that keep gradients."""
    architecture = "mlp" if plan.architecture == "sigmoid" else plan.architecture
    return replace(plan, architecture=architecture, gain=1.0)


# The change that each symptom suggests. Where the suggestion is to inspect labels or a batch, the
# inspection is assumed to find the fault.
SUGGESTED_CHANGES: dict[str, Callable[[TrainingSpec], TrainingSpec]] = {
    "inputs not normalised": lambda plan: replace(plan, raw=False),
    "labels constant": lambda plan: replace(plan, labels="true"),
    "zero weights": lambda plan: replace(plan, gain=1.0),
    "exploding activations": lambda plan: replace(plan, gain=1.0),
    "saturation": lambda plan: replace(plan, gain=1.0),
    "batch-norm statistics": lambda plan: replace(plan, lag=False),
    "exploding gradients": lambda plan: replace(plan, bad=0),
    "loss not finite": lambda plan: replace(plan, bad=0, rate=plan.rate / 10),
    "update too large": lambda plan: replace(plan, fast=False),
    "update too small": lambda plan: replace(plan, frozen=False),
    "vanishing gradients": _less_steep,
    "learning rate too high": lambda plan: replace(plan, rate=plan.rate / 10),
    "collapse": lambda plan: replace(plan, rate=plan.rate / 3),
    "dead layer": lambda plan: replace(plan, sleep=0.0),
    "learning rate too low": lambda plan: replace(plan, rate=plan.rate * 10),
    "inputs and labels do not match": lambda plan: replace(plan, labels="true"),
}
