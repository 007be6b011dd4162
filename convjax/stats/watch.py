"""What a training records of a model's layers and parameters, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from convjax.nn._capture import capture, channel_axes
from convjax.nn.selection import Select, has_parameters, predicate
from convjax.stats.activations import ActivationStats, activation_stats
from convjax.stats.parameters import Norms, parameter_stats

# The names under which a record holds what a network is given and asked for.
INPUT, LABELS = "input", "labels"


@dataclass(frozen=True)
class Watch:
    """What is watched, at which steps, and what is kept of it; each costs nothing where it is off.

    Attributes:
      select: which layers, see `convjax.nn.selection.Select`; the default are those with parameters.
      every: statistics are taken at steps 0, every, 2·every, … of a call of `Trainer.run`. The
        steps between are those of an unwatched training and cost nothing more.
      activations: mean, std and the shares near zero of the layers' outputs.
      histogram: of the values of all that is watched; most of the cost.
      units: which channels of each layer were active, for `Record.dead`.
      inputs: what the network is given and asked for, as layers named "input" and "labels" before
        the others.
      gradients: norms of each parameter's gradient.
      updates: norms of each parameter's update, and their ratio to those of the weights.
      evaluation: the loss of each batch with the model in evaluation mode, too, before the update
        and with the running statistics that include the batch; costs one more forward pass.
    """

    select: Select = has_parameters
    every: int = 1
    activations: bool = True
    histogram: bool = True
    units: bool = False
    inputs: bool = False
    gradients: bool = False
    updates: bool = False
    evaluation: bool = False

    def __post_init__(self) -> None:
        predicate(self.select)
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"every must be a whole number of steps, at least 1, got {self.every}. To watch "
                "nothing, give the trainer watch=None."
            )
        if self.units and not self.activations:
            raise ValueError("units=True must go with activations=True, got activations=False.")
        if not (self.activations or self.inputs or self.parameters or self.evaluation):
            raise ValueError(
                "one quantity or more must be watched, got none. To watch nothing, give the "
                "trainer watch=None."
            )

    @classmethod
    def everything(cls, select: Select = has_parameters, *, every: int = 1) -> "Watch":
        """Returns the watch with all that `convjax.diagnose` can use."""
        on = ("units", "inputs", "gradients", "updates", "evaluation")
        return cls(select, every, **dict.fromkeys(on, True))

    @property
    def parameters(self) -> bool:
        """Whether parameters are watched."""
        return self.gradients or self.updates

    def outputs(
        self, model: nnx.Module, x: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], dict[str, int]]:
        """Calls the model; returns its output, the watched layers' by name, and the axis of the
        channels in each."""
        if self.activations:
            output, found = capture(model, x, select=self.select)
        else:
            output, found = model(x), {}
        if self.inputs:
            if taken := {INPUT, LABELS} & set(found):
                raise ValueError(
                    f"inputs must be False for a model with a layer of the name {taken.pop()!r}, "
                    "under which the record would hold what the network is given. Rename the layer."
                )
            found = {INPUT: x, LABELS: labels, **found}
        return output, found, channel_axes(model, found)

    def stats(
        self, outputs: Mapping[str, jax.Array], axes: Mapping[str, int]
    ) -> tuple[ActivationStats, ...]:
        """Returns the statistics of each output."""
        return tuple(
            activation_stats(
                x, histogram=self.histogram, channel_axis=axes[name] if self.units else None
            )
            for name, x in outputs.items()
        )

    def parameter_stats(self, params: Any, grads: Any, updated: Any) -> Norms | None:
        """Returns the statistics of each parameter, None where none are watched."""
        if not self.parameters:
            return None
        return parameter_stats(
            params,
            grads=grads if self.gradients else None,
            updated=updated if self.updates else None,
            histogram=self.histogram,
        ).stats
