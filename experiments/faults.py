"""Plans of short trainings, and the faults that can be planted in them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from experiments.diagnosis_nets import ARCHITECTURES, Architecture

# A label of class + 10·k marks an example whose loss counts so many times: a corrupt image, and
# one whose pixels are no numbers.
WEIGHTS = (1.0, 3000.0, np.nan)
STEPS = 200


@dataclass(frozen=True)
class Plan:
    """One training, with everything that a fault or its cure may change.

    Attributes:
      architecture: a key of `experiments.diagnosis_nets.ARCHITECTURES`.
      seed: of the parameters, the order of the images and what a fault draws.
      optimizer: "adam" or "sgd".
      rate: factor on the architecture's healthy learning rate.
      schedule: "constant", "one-cycle", "long-warm-up" or "restarts".
      gain: factor on all initial kernels.
      sleep: added to the bias of the architecture's hidden layer.
      frozen, fast: whether the second kernel learns at a millionth, or at 300 times, the rate.
      raw: whether the pixels come as 0 to 255, not normalised.
      labels: "true", "shuffled" or "constant".
      bad: which of the examples are marked: the index in WEIGHTS.
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
    def of(self) -> Architecture:
        """The architecture itself."""
        return ARCHITECTURES[self.architecture]

    @property
    def structure(self) -> "Plan":
        """The plan with all at its default that a compiled program does not depend on."""
        return Plan(
            self.architecture,
            0,
            self.optimizer,
            frozen=self.frozen,
            fast=self.fast,
            raw=self.raw,
            lag=self.lag,
        )


class Fault(NamedTuple):
    """A fault: the change to a plan, and on which architectures it can be planted."""

    plant: Callable[[Plan, np.random.Generator], Plan]
    fits: Callable[[Architecture], bool] = lambda architecture: True


def _relu(architecture: Architecture) -> bool:
    return architecture.nonlinearity == "relu"


def _plain(architecture: Architecture) -> bool:
    return _relu(architecture) and "norm" not in architecture.hidden


# By the symptom that it should show; each fault varies in how strong it is.
FAULTS: dict[str, Fault] = {
    "inputs not normalised": Fault(lambda plan, rng: replace(plan, raw=True)),
    "labels constant": Fault(lambda plan, rng: replace(plan, labels="constant")),
    "zero weights": Fault(lambda plan, rng: replace(plan, gain=0.0), _plain),
    "exploding activations": Fault(
        lambda plan, rng: replace(plan, gain=float(rng.uniform(8, 20))), _plain
    ),
    "saturation": Fault(
        lambda plan, rng: replace(plan, gain=float(rng.uniform(8, 20))),
        lambda architecture: architecture.nonlinearity == "tanh",
    ),
    "vanishing activations": Fault(
        lambda plan, rng: replace(plan, gain=float(rng.uniform(0.02, 0.1))), _plain
    ),
    "batch-norm statistics": Fault(
        lambda plan, rng: replace(plan, lag=True), lambda architecture: architecture.batch_norm
    ),
    "exploding gradients": Fault(lambda plan, rng: replace(plan, bad=1)),
    "non-finite": Fault(lambda plan, rng: replace(plan, bad=2)),
    "update too large": Fault(lambda plan, rng: replace(plan, fast=True)),
    "update too small": Fault(lambda plan, rng: replace(plan, frozen=True)),
    "vanishing gradients": Fault(
        lambda plan, rng: replace(plan, architecture="sigmoid"),
        lambda architecture: architecture.nonlinearity == "tanh",
    ),
    "learning rate too high": Fault(
        lambda plan, rng: replace(plan, rate=float(rng.uniform(100, 300)))
    ),
    "collapse": Fault(lambda plan, rng: replace(plan, schedule="restarts"), _relu),
    "dead layer": Fault(lambda plan, rng: replace(plan, sleep=-float(rng.uniform(10, 30))), _relu),
    "learning rate too low": Fault(
        lambda plan, rng: replace(plan, rate=float(rng.uniform(1e-4, 1e-3)))
    ),
    "loss stuck at guessing": Fault(lambda plan, rng: replace(plan, labels="shuffled")),
}

# The change that each symptom advises, as far as a plan can be changed. To look at labels or at a
# batch is to find what is wrong with them.
CURES: dict[str, Callable[[Plan], Plan]] = {
    "inputs not normalised": lambda plan: replace(plan, raw=False),
    "labels constant": lambda plan: replace(plan, labels="true"),
    "zero weights": lambda plan: replace(plan, gain=1.0),
    "exploding activations": lambda plan: replace(plan, gain=1.0),
    "saturation": lambda plan: replace(plan, gain=1.0),
    "vanishing activations": lambda plan: replace(plan, gain=1.0),
    "batch-norm statistics": lambda plan: replace(plan, lag=False),
    "exploding gradients": lambda plan: replace(plan, bad=0),
    "non-finite": lambda plan: replace(plan, bad=0, rate=plan.rate / 10),
    "update too large": lambda plan: replace(plan, fast=False),
    "update too small": lambda plan: replace(plan, frozen=False),
    "vanishing gradients": lambda plan: replace(plan, architecture="mlp"),
    "learning rate too high": lambda plan: replace(plan, rate=plan.rate / 10),
    "collapse": lambda plan: replace(plan, rate=plan.rate / 3),
    "dead layer": lambda plan: replace(plan, sleep=0.0),
    "learning rate too low": lambda plan: replace(plan, rate=plan.rate * 10),
    "loss stuck at guessing": lambda plan: replace(plan, labels="true"),
}
