"""The optimisers of the zoo, and what else differs in its loops."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from experiments.diagnosis_study.healthy.architectures import ZooArchitecture


@dataclass(frozen=True)
class Optimiser:
    """An optimiser and its loop.

    Attributes:
      name: of both.
      make: returns the transformation, given the rate and the number of steps.
      sgd: whether the rate is that for SGD, and not that for Adam.
      rate: factor on the architecture's rate.
      batch: number of examples.
      steps: of the training.
      average: decay of a moving average of the parameters, which is then evaluated; 0 for none.
      head_only: whether only the last layer is trained, after others were trained before.
    """

    name: str
    make: Callable[[Any, int], optax.GradientTransformation]
    sgd: bool = False
    rate: float = 1.0
    batch: int = 64
    steps: int = 200
    average: float = 0.0
    head_only: bool = False

    def transformation(self, architecture: ZooArchitecture) -> optax.GradientTransformation:
        """Returns the transformation for an architecture."""
        rate = architecture.sgd if self.sgd else architecture.adam
        return self.make(self.rate * rate, self.steps)


def _adam(rate: Any, _: int) -> optax.GradientTransformation:
    return optax.adam(rate)


def _sgd(rate: Any, _: int) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


def _cosine(rate: float, steps: int) -> Any:
    return optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps, rate / 100)


def _adamw(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adamw(_cosine(rate, steps), weight_decay=0.01)


def _strong_decay(rate: float, _: int) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=0.1)


def _lion(rate: float, _: int) -> optax.GradientTransformation:
    return optax.lion(rate, weight_decay=0.01)


def _accumulated(every: int) -> Callable[[float, int], optax.GradientTransformation]:
    def make(rate: float, _: int) -> optax.GradientTransformation:
        return optax.MultiSteps(optax.adam(rate), every).gradient_transformation()

    return make


def _clipped(rate: float, _: int) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def _clipped_nesterov(rate: float, _: int) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, 0.9, nesterov=True))


def _one_cycle(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_onecycle_schedule(steps, rate))


def _one_cycle_sgd(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.sgd(optax.cosine_onecycle_schedule(steps, rate), momentum=0.9)


def _injected(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.inject_hyperparams(optax.adam)(learning_rate=_cosine(rate, steps))


def _rmsprop(rate: float, _: int) -> optax.GradientTransformation:
    return optax.rmsprop(rate, decay=0.99)


def _is_head(path: Any) -> str:
    return "head" if "head" in jax.tree_util.keystr(path) else "frozen"


def _head_only(rate: float, _: int) -> optax.GradientTransformation:
    return optax.multi_transform(
        {"head": optax.adam(rate), "frozen": optax.set_to_zero()},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: _is_head(path), params),
    )


# Neighbours make a pair of trainings of the same architecture and task.
OPTIMISERS: tuple[Optimiser, ...] = (
    Optimiser("adam", _adam),
    Optimiser("sgd, momentum", _sgd, sgd=True),
    Optimiser("adamw, warm-up, cosine", _adamw, rate=1.5),
    Optimiser("lion", _lion, rate=0.15),
    Optimiser("adam, accumulation over two", _accumulated(2), rate=1.5, batch=32, steps=300),
    Optimiser("adam, clipping", _clipped),
    Optimiser("adam, moving average", _adam, average=0.95),
    Optimiser("adam, frozen backbone", _head_only, head_only=True),
    Optimiser("one-cycle", _one_cycle, rate=2.0),
    Optimiser("adam, batch 16", _adam, rate=0.5, batch=16, steps=300),
    Optimiser("adam, batch 256", _adam, rate=1.5, batch=256, steps=100),
    Optimiser("adamw, decay 0.1", _strong_decay),
    Optimiser("adam, a third of the rate", _adam, rate=1 / 3, steps=350),
    Optimiser("adam, twice the rate", _adam, rate=2.0),
    Optimiser("sgd, nesterov, clipping", _clipped_nesterov, sgd=True),
    Optimiser("adam, accumulation over four", _accumulated(4), rate=2.0, batch=32, steps=400),
    Optimiser("one-cycle, sgd", _one_cycle_sgd, sgd=True, rate=2.0),
    Optimiser("adam, injected rate", _injected, rate=1.5),
    Optimiser("rmsprop", _rmsprop, rate=0.5),
)
