"""The compiled programs that take a chunk of training steps, on resident data or on a stream."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int, Int32, Num

from convjax.data import Stream
from convjax.parallel.mesh import REPLICATED, SPLIT_FIRST, SPLIT_SECOND, gather_over_devices
from convjax.parallel.placement import Placement
from convjax.parallel.timed_jit import TimedJit
from convjax.train.augmentation import step_key
from convjax.train.device_data import Images, stream_chunks
from convjax.train.scan_loop import ChunkRows, run_steps
from convjax.train.step import StepMetrics, TrainState, TrainStep


class ChunkPrograms:
    """A trainer's programs for chunks of steps.

    Args:
      step: the training step.
      placement: where the training takes place.
      every: the distance of watched steps.

    Attributes:
      resident: takes a chunk whose data are the whole split, on every device.
      streamed: takes a chunk whose data are its own images, each device's part on that device.
      streamed_unwatched: the same, without a watched step.
    """

    def __init__(self, step: TrainStep, placement: Placement, every: int):
        self._step, self._placement, self._every = step, placement, every
        self.resident = self._program(self.take, REPLICATED)
        self.streamed = self.resident
        if placement.mesh is not None:
            self.streamed = self._program(self.take, SPLIT_FIRST)
        self.streamed_unwatched = self._program(self._take_unwatched, SPLIT_FIRST)

    @property
    def programs(self) -> set[TimedJit]:
        """The distinct programs."""
        return {self.resident, self.streamed, self.streamed_unwatched}

    def _program(self, function: Callable[..., Any], of_data: Any) -> TimedJit:
        """Returns the program of a chunk whose data are placed as `of_data` says."""
        given = REPLICATED, of_data, SPLIT_SECOND, REPLICATED, REPLICATED
        # A process cannot fetch rows that lie on the devices of another.
        stats = REPLICATED if self._placement.spans else SPLIT_FIRST
        returned = REPLICATED, ChunkRows(REPLICATED, stats)
        return self._placement.program(function, given, returned, donate_argnums=0)

    def take(
        self,
        state: TrainState,
        data: Images,
        order: Int[Array, "K B"],
        table: Mapping[str, Num[Array, " K"]],
        steps: Int[Array, ""],
        *,
        watched: bool = True,
    ) -> tuple[TrainState, ChunkRows]:
        """Takes `steps` steps of a chunk, a pure function.

        Args:
          state: before the first step.
          data: the images of the chunk, or the whole split.
          order: indices into data.
          table: learning rate and momentum of each step; with augmentations, also the columns of
            `convjax.train.augmentation.step_columns`.
          steps: number of steps to take, at most K. Later rows of the result have no meaning.
          watched: False watches no step.

        Returns:
          The new state, and the rows of the record. With devices, the rows of the statistics have
          the device as an additional first axis.
        """

        def take(
            i: jax.Array, state: TrainState, watched: bool
        ) -> tuple[TrainState, StepMetrics, Any]:
            images, labels = data.images[order[i]], data.labels[order[i]]
            rates = table["learning_rate"][i], table["momentum"][i]
            key = None
            if self._step.augmenter is not None:
                key = step_key(table["seed"][i], table["step"][i])
            return self._step(state, images, labels, *rates, watched=watched, key=key)

        length = len(order)
        every = min(self._every, length)
        state, rows = run_steps(take, state, length, steps, every=every, watched=watched)
        if self._placement.mesh is None:
            return state, rows
        stats = jax.tree.map(lambda a: a[None], rows.stats)
        if self._placement.spans:  # a process cannot fetch the rows of others
            layers, facts = gather_over_devices((rows.stats.layers, rows.stats.facts))
            stats = stats._replace(layers=layers, facts=facts)
        return state, rows._replace(stats=stats)

    def _take_unwatched(self, *args: Any) -> tuple[TrainState, ChunkRows]:
        return self.take(*args, watched=False)

    @contextmanager
    def reading(
        self, data: Images | Stream, order: Int32[np.ndarray, "T B"], length: int, first_step: int
    ) -> Iterator[Callable[..., tuple[TrainState, ChunkRows]]]:
        """Yields the function that takes the next chunk of `length` steps, for `run_chunks`.

        Args:
          data: the split, on the device or left in its files.
          order: indices of the examples of each batch.
          length: steps per chunk.
          first_step: number of the first step, for the message of a file that cannot be read.
        """
        if isinstance(data, Images):
            resident = self._placement.put(data)

            def take_resident(
                state: TrainState, _: Any, *given: Any
            ) -> tuple[TrainState, ChunkRows]:
                return self.resident(state, resident, *self._placement.put_order(*given))

            yield take_resident
            return
        with stream_chunks(data, order, length, self._placement.mesh, first_step) as chunks:
            starts = itertools.count(0, length)

            def take_streamed(
                state: TrainState, _: Any, __: Any, *given: Any
            ) -> tuple[TrainState, ChunkRows]:
                images, labels, rows = next(chunks)
                # A chunk may be shorter than the distance of watched steps, and have none.
                watched = next(starts) % self._every == 0
                run = self.streamed if watched else self.streamed_unwatched
                return run(state, Images(images, labels), *self._placement.put_order(rows, *given))

            yield take_streamed
