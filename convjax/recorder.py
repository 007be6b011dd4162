"""Statistics from a training loop of one's own: returned by the jitted step, kept as a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax import record as records
from convjax.record import Record
from convjax.stats import ActivationStats, activation_stats

# Steps are fetched from the device so many at a time, and as many later: the device has finished
# them then, and no step waits for the host.
BLOCK = 64

# More columns than a picture has pixels.
ROWS = 4096


@partial(jax.tree_util.register_dataclass, data_fields=["stats"], meta_fields=["names", "sizes"])
@dataclass(frozen=True)
class LayerStats:
    """Statistics of L layers at one step; a tree of arrays for JAX, so that a step may return it.

    Attributes:
      names: of the layers, in the order of their calls.
      sizes: values of each.
      stats: every field has a first axis L.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    stats: ActivationStats


def layer_stats(outputs: Mapping[str, jax.Array], *, histogram: bool = True) -> LayerStats:
    """Returns the statistics of each layer's output, to be called within the jitted step.

    Args:
      outputs: by the layer's name, as `convjax.capture` returns them.
      histogram: False leaves out the histograms, most of the cost.

    Raises:
      ValueError: if there is no output.
    """
    if not outputs:
        raise ValueError("outputs must hold the output of one layer or more, got none.")
    stats = [activation_stats(x, histogram=histogram) for x in outputs.values()]
    return LayerStats(
        tuple(outputs),
        tuple(x.size for x in outputs.values()),
        jax.tree.map(lambda *values: jnp.stack(values), *stats),
    )


class Recorder:
    """Collects what the steps of a training loop return, without making them wait.

    recorder = Recorder()
    for x, y in batches:
        loss, stats = train_step(model, optimizer, x, y)  # jitted, yours
        recorder.add(loss, stats)
    plots.color_dim(recorder.record(), "conv2")

    However long the training, the record has at most `rows` rows: when there are more, neighbouring
    steps are merged, see `Record.merged`.

    Args:
      rows: at least 1.
    """

    def __init__(self, *, rows: int = ROWS):
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}.")
        self.rows = rows
        self._waiting: list[tuple[tuple[Any, Any, Any], LayerStats | None]] = []
        self._kind: tuple[dict[str, int], bool] | None = None  # layers, values of each; histograms
        self._pieces: list[Record] = []  # the first of them merged, where there were many

    def add(
        self,
        loss: jax.typing.ArrayLike,
        layers: LayerStats | None = None,
        *,
        learning_rate: jax.typing.ArrayLike = np.nan,
        momentum: jax.typing.ArrayLike = np.nan,
    ) -> None:
        """Adds a step; values on the device are fetched some steps later.

        Args:
          loss: a scalar.
          layers: of this step, or None for a step that is not watched.
          learning_rate, momentum: where they are known, for the plot of the schedule.

        Raises:
          TypeError: if layers are not what `layer_stats` returns, or the loss is a tracer.
          ValueError: if the loss is no scalar, or the layers are not those of the steps before.
        """
        if isinstance(loss, jax.core.Tracer):
            raise TypeError(
                "loss must be a value, got a tracer: return the loss and the statistics from the "
                "jitted step, and add them outside."
            )
        if np.shape(loss) != ():
            raise ValueError(f"loss must be a scalar, got the shape {np.shape(loss)}.")
        if not (layers is None or isinstance(layers, LayerStats)):
            raise TypeError(
                f"layers must be what layer_stats(outputs) returns, got {type(layers).__name__}."
            )
        if layers is not None:
            layers = self._checked(layers)
        self._waiting.append(((loss, learning_rate, momentum), layers))
        if len(self._waiting) >= 2 * BLOCK:
            self._fetch(BLOCK)

    def _checked(self, layers: LayerStats) -> LayerStats:
        """Returns the statistics with the layers in the order of the first step."""
        if np.shape(layers.stats.mean) != (len(layers.names),):
            raise ValueError(
                f"layers must be of one step, got means of the shape {np.shape(layers.stats.mean)} "
                f"for {len(layers.names)} layers. Add the steps of a scan one by one."
            )
        sizes = dict(zip(layers.names, layers.sizes, strict=True))
        kind = sizes, layers.stats.hist is not None
        self._kind = self._kind or kind
        if kind != self._kind:
            raise ValueError(
                "layers must be the same, with as many values, all with histograms or none, at all "
                f"watched steps: got {kind[0]} after {self._kind[0]}, histograms {kind[1]} after "
                f"{self._kind[1]}. Drop the last, smaller batch of an epoch."
            )
        names = tuple(self._kind[0])
        if names == layers.names:
            return layers
        # JAX sorts a mapping that crosses the edge of a jitted function.
        order = np.array([layers.names.index(name) for name in names])
        return LayerStats(
            names, tuple(self._kind[0].values()), jax.tree.map(itemgetter(order), layers.stats)
        )

    def record(self) -> Record:
        """Returns the record of all steps so far, in at most `rows` rows.

        Raises:
          ValueError: if there is none.
        """
        self._fetch(len(self._waiting))
        if not self._pieces:
            raise ValueError("the recorder has no steps yet: add(loss, layers) after each step.")
        return records.concatenate(self._pieces).merged(self.rows)

    def _fetch(self, steps: int) -> None:
        block = jax.device_get(self._waiting[:steps])
        if not block:
            return
        found = [(i, layers.stats) for i, (_, layers) in enumerate(block) if layers is not None]
        sizes = self._kind[0] if self._kind and found else {}
        stats: Sequence[ActivationStats] = ()
        if found:
            joined = jax.tree.map(lambda *steps: np.stack(steps), *(stats for _, stats in found))
            stats = [jax.tree.map(itemgetter((slice(None), i)), joined) for i in range(len(sizes))]
        loss, learning_rate, momentum = np.array([row for row, _ in block], np.float32).T
        self._pieces.append(
            records.from_steps(
                sizes,
                sizes.values(),
                loss,
                learning_rate,
                momentum,
                np.array([i for i, _ in found], int),
                stats,
            )
        )
        self._waiting = self._waiting[steps:]
        # At twice the rows, so that a row is merged but once for each doubling of the steps.
        if sum(len(piece.first) for piece in self._pieces) > 2 * self.rows:
            self._pieces = [records.concatenate(self._pieces).merged(self.rows)]
