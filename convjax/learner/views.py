"""What a learner has recorded, under fastai's names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from convjax import plots
from convjax.plots.figure import Size
from convjax.stats.record import Record

if TYPE_CHECKING:
    import matplotlib.figure


class Recorded:
    """The loss, rate, momentum and metrics of the last training; fastai's `recorder`.

    Attributes:
      record: of every step.
      values: a row of metrics for each epoch.
    """

    def __init__(self, record: Record, values: Sequence[Mapping[str, Any]]):
        self.record, self.values = record, list(values)

    @property
    def losses(self) -> Float[np.ndarray, " rows"]:
        """The smoothed training loss."""
        return self.record.smoothed_loss()

    @property
    def lrs(self) -> Float[np.ndarray, " rows"]:
        """The learning rate of each row of the record."""
        return self.record.learning_rate

    def plot_sched(self, figsize: Size = None) -> "matplotlib.figure.Figure":
        """Draws rate and momentum, as `convjax.plots.plot_sched`."""
        return plots.plot_sched(self.record, figsize=figsize)

    def plot_loss(
        self, skip_start: int = 5, with_valid: bool = True, figsize: Size = None
    ) -> "matplotlib.figure.Figure":
        """Draws the loss, as `convjax.plots.plot_loss`.

        Args:
          skip_start: the first steps, which are left out.
          with_valid: whether the validation loss is drawn, too.
          figsize: width and height, inches.
        """
        metrics = self.values if with_valid else None
        return plots.plot_loss(self.record, metrics, skip_start=skip_start, figsize=figsize)


class RecordedActivations:
    """The statistics of layers in the last training; fastai's `activation_stats`.

    Layers are those with parameters, in the order of their calls: 0 is the first, −1 the last.
    """

    def __init__(self, record: Record):
        self.record = record
        # The network's input and labels, which stand among the layers of a record.
        self.names = tuple(name for name in record.layers if name not in ("input", "labels"))

    def __repr__(self) -> str:
        return f"RecordedActivations({', '.join(self.names)})"

    def __len__(self) -> int:
        return len(self.names)

    def name(self, layer: int | str) -> str:
        """Returns the name of a layer.

        Raises:
          IndexError: if there is no layer of this number.
        """
        if isinstance(layer, str):
            return layer
        if not -len(self.names) <= layer < len(self.names):
            raise IndexError(
                f"layer must be from {-len(self.names)} to {len(self.names) - 1}, got {layer}: "
                f"{', '.join(self.names)}."
            )
        return self.names[layer]

    def layer_stats(self, layer: int | str) -> dict[str, Float[np.ndarray, " steps"]]:
        """Returns mean, std and near_zero of a layer at every watched step."""
        column = self.record.layer(self.name(layer))
        return {
            name: getattr(self.record, name)[:, column] for name in ("mean", "std", "near_zero")
        }

    def plot_layer_stats(
        self, layer: int | str, figsize: Size = None
    ) -> "matplotlib.figure.Figure":
        """Draws them, as `convjax.plots.plot_layer_stats`."""
        return plots.plot_layer_stats(self.record, self.name(layer), figsize=figsize)

    def color_dim(self, layer: int | str, figsize: Size = None) -> "matplotlib.figure.Figure":
        """Draws the histograms of a layer, as `convjax.plots.color_dim`."""
        return plots.color_dim(self.record, self.name(layer), figsize=figsize)
