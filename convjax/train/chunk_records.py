"""Records of chunks: from the rows that the steps leave on the devices to a `Record`."""

from typing import Any

import jax
import numpy as np

from convjax.data import Stream
from convjax.parallel.placement import Placement
from convjax.stats.facts import merge_members
from convjax.stats.merging import merge_parts
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record
from convjax.stats.record_builder import from_steps
from convjax.stats.watch import Watch
from convjax.train.device_data import Images
from convjax.train.scan_loop import ChunkRows
from convjax.train.step import TrainState, TrainStep, WatchedNames


class ChunkRecorder:
    """Makes the records of a trainer's chunks.

    Args:
      step: the training step that fills the rows.
      placement: where the training takes place.
      watch: the quantities that the step records; None for the loss, rate and momentum alone.
    """

    def __init__(self, step: TrainStep, placement: Placement, watch: Watch | None):
        self._step, self._placement, self._watch = step, placement, watch
        self._known: dict[Any, WatchedNames] = {}

    def layers(self, state: TrainState, data: Images | Stream, batch_size: int) -> WatchedNames:
        """Returns the names of the watched layers and their numbers of values per step.

        Raises:
          ValueError: if the output of a layer cannot be split over the devices.
        """
        batch = tuple(
            jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype)
            for array in (data.images, data.labels)
        )
        # Tracing the model takes as long as dozens of steps: once per shape of the batch.
        key = tuple((x.shape, x.dtype) for x in batch)
        if key not in self._known:
            layers = self._step.layers(state, *batch)
            self._check_parts(state, batch, layers)
            self._known[key] = layers
        return self._known[key]

    def _check_parts(
        self, state: TrainState, batch: tuple[jax.ShapeDtypeStruct, ...], whole: WatchedNames
    ) -> None:
        parts = self._placement.parts
        part = [jax.ShapeDtypeStruct((len(x) // parts, *x.shape[1:]), x.dtype) for x in batch]
        if parts > 1:
            sizes = self._step.layers(state, *part).sizes
            for name, size, size_of_part in zip(whole.names, whole.sizes, sizes, strict=True):
                if size != parts * size_of_part:
                    raise ValueError(
                        f"devices must be None to watch {name}, whose output has {size} values for "
                        f"a batch and {size_of_part} for one of its {parts} parts."
                    )

    def record(self, layers: WatchedNames, rows: ChunkRows, steps: int, *, watched: bool) -> Record:
        """Fetches the rows of a chunk and returns their record.

        Args:
          layers: from `layers`.
          rows: of the chunk, on the devices.
          steps: number of rows that count.
          watched: whether the first step of the chunk was watched; if not, none was.
        """
        metrics, stats = jax.device_get(rows)
        # Sliced on the host: on the device each length would be a program of its own.
        metrics = jax.tree.map(lambda column: column[:steps], metrics)
        if self._placement.mesh is not None:
            # All devices hold the same parameters, and each its own part of the layers' outputs.
            parts, facts = stats.layers, merge_members(stats.facts or {})
            stats = jax.tree.map(lambda column: column[0], stats)
            sizes = (size // self._placement.parts for size in layers.sizes)
            stats = stats._replace(layers=tuple(map(merge_parts, parts, sizes)), facts=facts)
        at = np.arange(0, steps, 1 if self._watch is None else self._watch.every)
        if self._watch is None or not watched:
            at = at[:0]
        stats = jax.tree.map(lambda column: column[: len(at)], stats)
        parameters = None
        if stats.parameters is not None:
            parameters = ParameterRecord.from_steps(layers.parameters, at, stats.parameters)
        return from_steps(
            layers.names if watched else (),
            layers.sizes if watched else (),
            metrics.loss,
            metrics.learning_rate,
            metrics.momentum,
            at,
            stats.layers,
            parameters=parameters,
            eval_loss=stats.eval_loss,
            facts=stats.facts,
            kinds=layers.kinds if watched else (),
            bins="fastai" if self._watch is None else self._watch.bins,
        )
