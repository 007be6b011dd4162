"""Settings of trainings: the network, the schedule and the size of the batches."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convjax._checks import near_match
from convjax.nn import models
from convjax.optim import optimizers, schedules
from convjax.optim.optimizers import Optimizer
from convjax.train.step import LossFn, cross_entropy

# One-cycle and what is left of it without one of its parts, as arguments of `one_cycle`. Without
# warm-up the rate begins at its highest, without annealing it stays there; the momentum, which
# moves against the rate, does likewise, or stays at fastai's constant.
CYCLES: dict[str, dict[str, Any]] = {
    "one-cycle": {},
    "linear": {"anneal": "linear"},
    "no-warm-up": {"div": 1, "momentum": (0.85, 0.85, 0.95)},
    "no-annealing": {"div_final": 1, "momentum": (0.95, 0.85, 0.85)},
    "flat-momentum": {"momentum": (0.9, 0.9, 0.9)},
}

NETWORKS = ("digits", "threes-sevens", "linear")
NORMS = ("batch", "layer", "group", "instance")


@dataclass(frozen=True)
class Setting:
    """One training of the chapter; variants are made with `dataclasses.replace`.

    Attributes:
      network: "digits" (ten classes), or for threes and sevens "threes-sevens" (convolutions) or
        "linear" (fully connected, trained as in the book's chapter on MNIST: SGD without momentum,
        1 − the probability of the right answer as the loss).
      norm: None, "batch", "layer", "group" or "instance".
      norm_last: whether the last layer has the norm, too.
      activate_first: the ReLU before the norm.
      first_kernel: pixels a side of the first kernel, of "digits" alone.
      batch_size: images per step.
      epochs: of the chapter; the learning rate's schedule spans them all.
      schedule: "constant", or one of CYCLES.
      lr_max: the constant, or the highest, learning rate.
      scores: evaluations per epoch.
      encoding: None, the images as they are, or of "digits" alone one of `encodings.ENCODINGS`: the
        images in colour (see `coloured`) in that encoding.
    """

    network: str = "digits"
    norm: str | None = None
    norm_last: bool = True
    activate_first: bool = False
    first_kernel: int = 5
    batch_size: int = 64
    epochs: int = 1
    schedule: str = "constant"
    lr_max: float = 0.06
    scores: int = 1
    encoding: str | None = None

    def table(self, steps: int) -> dict[str, jax.Array]:
        """Returns the learning rate and momentum of each of `steps` steps."""
        if self.schedule == "constant":
            momentum = 0.0 if self.network == "linear" else 0.9
            return schedules.constant(self.lr_max, momentum).table(steps)
        return schedules.one_cycle(steps, self.lr_max, **CYCLES[self.schedule]).table(steps)

    def __post_init__(self) -> None:
        """Raises ValueError for a value that no training can have."""
        known = {"network": NETWORKS, "norm": (None, *NORMS), "schedule": ("constant", *CYCLES)}
        for name, names in known.items():
            value = getattr(self, name)
            if value not in names:
                shown = [str(option or "none") for option in names]
                raise ValueError(
                    f"{name} must be one of {', '.join(shown)}, got {value!r}"
                    f"{near_match(str(value), shown) or '.'}"
                )
        for name in ("batch_size", "epochs", "scores", "first_kernel"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}.")
        if not (isinstance(self.lr_max, int | float) and 0 < self.lr_max < math.inf):
            raise ValueError(f"lr_max must be a positive number, got {self.lr_max!r}.")

    @property
    def slug(self) -> str:
        """A name for a folder, the same for the same setting and no other."""
        parts = [self.network]
        parts += [f"{self.norm}norm"] if self.norm else []
        for name in ("norm_last", "activate_first", "first_kernel", "scores", "encoding"):
            value = getattr(self, name)
            if value != getattr(Setting(), name):
                parts.append(f"{name.replace('_', '-')}-{value}".lower())
        parts += [self.schedule, f"bs{self.batch_size}", f"lr{self.lr_max}"]
        parts += [f"{self.epochs}epochs"] if self.epochs > 1 else []
        return "-".join(parts)

    @property
    def config(self) -> dict[str, Any]:
        """All fields, as a run's configuration has them.

        None for the encoding is left out, so that runs from before there was one can be gone on
        with.
        """
        fields = asdict(self)
        return fields if self.encoding else {k: v for k, v in fields.items() if k != "encoding"}

    @property
    def structure(self) -> "Setting":
        """The setting with all that a compiled program does not depend on at its default."""
        default = Setting()
        free = ("batch_size", "epochs", "schedule", "lr_max", "scores")
        return replace(self, **{name: getattr(default, name) for name in free})

    @property
    def optimizer(self) -> Optimizer:
        """fastai's Adam, or SGD for "linear"."""
        return optimizers.sgd() if self.network == "linear" else optimizers.adam()

    @property
    def loss(self) -> LossFn:
        """Cross entropy, or that of the book's chapter on MNIST for "linear"."""
        return wrong_probability if self.network == "linear" else cross_entropy

    def build(self, image: tuple[int, ...], classes: int, layout: str, seed: int) -> nnx.Module:
        """Returns the network with the initial parameters of a seed.

        Args:
          image: (height, width, channels).
        """
        rngs = nnx.Rngs(seed)
        if self.network == "linear":
            height, width, channels = image
            return models.LinearNet((height * width * channels, 30, 1), rngs=rngs)
        settings: dict[str, Any] = {
            "in_features": image[-1],
            "classes": classes,
            "norm": self.norm,
            "norm_last": self.norm_last,
            "activate_first": self.activate_first,
            "layout": layout,
            "rngs": rngs,
        }
        if self.network == "digits":
            return models.digits_net(first_kernel=self.first_kernel, **settings)
        return models.threes_sevens_net(**settings)


def wrong_probability(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns 1 − the probability of the right one of two classes, shape (N,), for one logit."""
    probability = nnx.sigmoid(logits[:, 0])  # of label 1
    return jnp.where(labels == 1, 1 - probability, probability)


# The last 3×3 convolution before that to the classes, by its name in a record.
PENULTIMATE = "blocks.3.conv"

BASELINE = Setting()
LINEAR = Setting(network="linear", batch_size=256, epochs=40, lr_max=0.1)
THREE_OR_SEVEN = Setting(network="threes-sevens", epochs=2, schedule="one-cycle", lr_max=0.01)
BATCH_512 = replace(BASELINE, batch_size=512)
ONE_CYCLE = replace(BATCH_512, schedule="one-cycle")
BATCH_NORM = replace(ONE_CYCLE, norm="batch")
LONGER = replace(BATCH_NORM, epochs=5, lr_max=0.1)
