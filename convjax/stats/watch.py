"""The choice of what a training records of a model's layers and parameters, and how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flax import nnx
from jaxtyping import Array, Real

from convjax._checks import check_flags
from convjax.nn._capture import capture
from convjax.nn.outputs import LayerOutputs
from convjax.nn.selection import Select, has_parameters, predicate
from convjax.stats.activations import ActivationStats, per_layer, stats_of
from convjax.stats.bins import Bins, as_bins
from convjax.stats.parameters import Norms, parameter_stats

# The names of the layers under which a record stores the network's input and labels.
INPUT, LABELS = "input", "labels"


@dataclass(frozen=True)
class Watch:
    """The quantities that a training records, and the steps; what is off costs nothing.

    Attributes:
      select: which layers, see `convjax.nn.selection.Select`; by default those with parameters.
      every: statistics are taken at steps 0, every, 2·every, … of a call of `Trainer.run`. The
        steps between are those of an unwatched training and have no extra cost.
      activations: mean, std and the shares near zero of the layers' outputs.
      histogram: histograms of everything that is watched; most of the cost.
      units: which channels of each layer were active, for `Record.dead`.
      inputs: the network's input and labels, as layers named "input" and "labels" before the
        others.
      gradients: norms of each parameter's gradient.
      updates: norms of each parameter's update, and their ratio to those of the weights.
      evaluation: also the loss of each batch with the model in evaluation mode, before the update
        and with the running statistics that include the batch; costs one more forward pass.
        `Recorder.watch` takes it at every 32nd step, with the running statistics before the batch.
      bins: of the layers' histograms: "fastai" (40 over 0 to 10), "symmetric" (40 over -5 to 5, for
        the outputs of GELU, tanh or a normalisation) or a `convjax.Bins`.

    Raises:
      TypeError: if select or bins is of another type, or a quantity neither True nor False.
      ValueError: if every is below 1, no quantity is on, or bins is not the name of a preset.

    Examples:
      >>> from convjax import Bins, Watch
      >>> Watch(every=8, bins=Bins(-2.0, 2.0, 20)).parameters
      False
      >>> Watch.everything("*conv").parameters
      True
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
    bins: Bins | str = field(default="fastai", kw_only=True)

    def __post_init__(self) -> None:
        predicate(self.select)
        as_bins(self.bins)
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"every must be a whole number of steps, at least 1, got {self.every}. To watch "
                "nothing, give the trainer watch=None."
            )
        flags = (
            "activations",
            "histogram",
            "units",
            "inputs",
            "gradients",
            "updates",
            "evaluation",
        )
        check_flags(**{name: getattr(self, name) for name in flags})
        if self.units and not self.activations:
            raise ValueError("units=True must go with activations=True, got activations=False.")
        if not (self.activations or self.inputs or self.parameters or self.evaluation):
            raise ValueError(
                "one quantity or more must be watched, got none. To watch nothing, give the "
                "trainer watch=None."
            )

    @classmethod
    def everything(cls, select: Select = has_parameters, *, every: int = 1) -> "Watch":
        """Returns the watch with all quantities that `convjax.diagnose` can use."""
        return cls(
            select, every, units=True, inputs=True, gradients=True, updates=True, evaluation=True
        )

    @property
    def parameters(self) -> bool:
        """Whether gradients or updates of parameters are watched."""
        return self.gradients or self.updates

    def outputs(
        self, model: nnx.Module, x: Real[Array, "N ..."], labels: Real[Array, "..."]
    ) -> tuple[Any, dict[str, Any], dict[str, int]]:
        """Returns the output of a model, the outputs of its watched layers, and their channel axes.

        Raises:
          ValueError: if `inputs` is on and a layer has the name of the input or the labels.
        """
        if self.activations:
            output, found = capture(model, x, select=self.select)
        else:
            output, found = model(x), LayerOutputs()
        if self.inputs:
            if taken := {INPUT, LABELS} & set(found):
                raise ValueError(
                    f"inputs must be False for a model with a layer of the name {taken.pop()!r}, "
                    "which the record uses for the network's input or labels. Rename the layer."
                )
            found = {INPUT: x, LABELS: labels} | found
        return output, found, dict.fromkeys(found, -1) | found.channel_axes

    def stats(
        self, outputs: Mapping[str, Any], axes: Mapping[str, int]
    ) -> tuple[ActivationStats, ...]:
        """Returns the statistics of each output, given the axis of its channels."""
        return per_layer(
            *stats_of(
                list(outputs.values()),
                histogram=self.histogram,
                bins=as_bins(self.bins),
                channel_axes=[axes[name] if self.units else None for name in outputs],
            )
        )

    def parameter_stats(self, params: Any, grads: Any, updated: Any) -> Norms | None:
        """Returns the statistics of each parameter, None if parameters are not watched."""
        if not self.parameters:
            return None
        return parameter_stats(
            params,
            grads=grads if self.gradients else None,
            updated=updated if self.updates else None,
            histogram=self.histogram,
        ).stats
