"""Statistics from a training loop of one's own: returned by the jitted step, kept as a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax import record as records
from convjax.record import Array, Record
from convjax.stats import ActivationStats, activation_stats

# Steps are fetched from the device so many at a time, and as many later: the device has finished
# them then, and no step waits for the host.
BLOCK = 64


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
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[tuple[Any, Any, Any], LayerStats | None]] = []
        self._measures: list[Array] = []  # blocks of (steps, 3)
        self._watched: list[int] = []  # steps with statistics
        self._stats: list[ActivationStats] = []  # blocks of (watched steps, L, …)
        self._kind: dict[str, int] = {}  # the layers, and the values of each

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
          TypeError: if layers are not what `layer_stats` returns.
          ValueError: if the loss is no scalar, or the layers are not those of the steps before.
        """
        if np.shape(loss) != ():
            raise ValueError(f"loss must be a scalar, got the shape {np.shape(loss)}.")
        if not (layers is None or isinstance(layers, LayerStats)):
            raise TypeError(
                f"layers must be what layer_stats(outputs) returns, got {type(layers).__name__}."
            )
        if layers is not None:
            kind = dict(zip(layers.names, layers.sizes, strict=True))
            if kind != (self._kind or kind):
                raise ValueError(
                    "layers must be the same, with as many values, at all watched steps: got "
                    f"{kind} after {self._kind}. Drop the last, smaller batch of an epoch."
                )
            self._kind = kind
        self._waiting.append(((loss, learning_rate, momentum), layers))
        if len(self._waiting) >= 2 * BLOCK:
            self._fetch(BLOCK)

    def record(self) -> Record:
        """Returns the record of all steps so far.

        Raises:
          ValueError: if there is none.
        """
        self._fetch(len(self._waiting))
        if not self._measures:
            raise ValueError("the recorder has no steps yet: add(loss, layers) after each step.")
        joined: Any = ()
        if self._stats:
            joined = jax.tree.map(lambda *blocks: np.concatenate(blocks), *self._stats)
        stats = [jax.tree.map(itemgetter((slice(None), i)), joined) for i in range(len(self._kind))]
        loss, learning_rate, momentum = np.concatenate(self._measures).T
        return records.from_steps(
            self._kind,
            self._kind.values(),
            loss,
            learning_rate,
            momentum,
            np.array(self._watched, int),
            stats,
        )

    def _fetch(self, steps: int) -> None:
        block, self._waiting = jax.device_get(self._waiting[:steps]), self._waiting[steps:]
        if not block:
            return
        done = sum(map(len, self._measures))
        self._measures.append(np.array([measures for measures, _ in block], np.float32))
        found = [(i, layers) for i, (_, layers) in enumerate(block) if layers is not None]
        if found:
            self._watched += [done + i for i, _ in found]
            stats = [layers.stats for _, layers in found]
            self._stats.append(jax.tree.map(lambda *steps: np.stack(steps), *stats))
