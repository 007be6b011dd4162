"""What a training records of a model's layers, and how often."""

from collections.abc import Iterable
from dataclasses import dataclass

import jax
from flax import nnx

from convjax.capture import capture
from convjax.select import Select, has_parameters, matcher
from convjax.stats import ActivationStats, activation_stats


@dataclass(frozen=True)
class Watch:
    """Which layers are watched, at which steps, and what is kept of them.

    Attributes:
      select: which layers, see `convjax.select.Select`; the default are those with parameters.
      every: statistics are taken at steps 0, every, 2·every, … of a call of `Trainer.run`. The
        steps between are those of an unwatched training and cost nothing more.
      histogram: False keeps mean, std and the shares near zero only.
    """

    select: Select = has_parameters
    every: int = 1
    histogram: bool = True

    def __post_init__(self) -> None:
        matcher(self.select)
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"every must be a whole number of steps, at least 1, got {self.every}. To watch "
                "nothing, give the trainer watch=None."
            )

    def outputs(self, model: nnx.Module, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Calls the model; returns its output and the watched layers' by name."""
        return capture(model, x, select=self.select)

    def stats(self, outputs: Iterable[jax.Array]) -> tuple[ActivationStats, ...]:
        """Returns the statistics of each output."""
        return tuple(activation_stats(x, histogram=self.histogram) for x in outputs)
