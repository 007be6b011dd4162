"""Training: one visible loop over chunks of steps.

The data lie on the device as uint8. A chunk of steps is one compiled loop: each step gathers its
batch, normalises it, runs the model with its layers watched, reduces their outputs to statistics,
and updates. Nothing but the records leaves the device, and the host fetches those of one chunk
while the next runs.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax._checks import check_type
from convjax.data import Stream
from convjax.optim.optimizers import Optimizer
from convjax.parallel.mesh import REPLICATED, SPLIT_FIRST, SPLIT_SECOND, gather, gather_over_devices
from convjax.parallel.placement import Placement
from convjax.parallel.timed_jit import TimedJit
from convjax.stats.merging import merge_parts
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record
from convjax.stats.record_builder import MAX_ROWS, RecordBuilder, from_steps
from convjax.stats.watch import Watch
from convjax.train._arguments import check_alive, checked_order, checked_table
from convjax.train.device_data import Images, check_data, steps_at_once, stream_chunks
from convjax.train.evaluation import Evaluator, Scores
from convjax.train.scan_loop import ChunkRows, bounded_length, chunk_length, run_chunks, run_steps
from convjax.train.step import (
    LossFn,
    StepMetrics,
    TrainState,
    TrainStep,
    WatchedNames,
    cross_entropy,
)
from convjax.train.vmapped_runs import VmappedRuns


class Trainer:
    """A model, an optimiser and the way images become input, compiled once for all trainings.

    Args:
      model: a Flax NNX module from images (N, H, W, C) to logits (N, classes). It gives the
        structure, and with `start(model)` the parameters; it is never changed.
      optimizer: from `convjax.optim.optimizers`.
      mean, std: per channel, on the scale p/255, subtracted and divided by; (0, 1) only divides
        pixels by 255.
      loss: from logits and labels to one loss per example.
      watch: which layers are watched and how often; None for the loss, rate and momentum alone.
      devices: train on these at once, each with an equal part of every batch, whose size must be a
        multiple of their number; None for JAX's default device. The result is that of one device
        up to rounding: batch norm, ours and Flax's, and the statistics are those of the whole
        batch. Every device holds the parameters and the data. On CPU, JAX shows more than one
        device after `jax.config.update("jax_num_cpu_devices", n)`. After
        `convjax.parallel.distributed.initialize` they may be those of several processes, each of which makes
        the same calls with the same arguments and gets the same results.

    Attributes:
      together: its programs for several trainings at once, which `convjax.sweep` runs.

    Raises:
      ValueError: if the std is not positive, or for devices that `convjax.parallel.mesh.data_mesh`
        rejects or over which the model cannot be split (`convjax.nn.sync_batch_norm.check_splits`).
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: Optimizer,
        *,
        mean: npt.ArrayLike = 0.0,
        std: npt.ArrayLike = 1.0,
        loss: LossFn = cross_entropy,
        watch: Watch | None = Watch(),  # noqa: B008  # frozen
        devices: Sequence[jax.Device] | None = None,
    ):
        check_type("optimizer", optimizer, Optimizer, "convjax.adam() and convjax.sgd() make one.")
        self.optimizer, self.watch, self.devices = optimizer, watch, devices
        self._placement = Placement(devices)
        self.step = TrainStep(
            model,
            optimizer,
            mean=mean,
            std=std,
            loss=loss,
            watch=watch,
            synchronized=self._placement.mesh is not None,
        )
        self._every = 1 if watch is None else watch.every
        self._known_layers: dict[tuple[int, ...], WatchedNames] = {}
        self._run_start = TimedJit(self._start)
        # Of resident data every device has all; of a stream's, what its part of the steps needs.
        self._run_chunk = self._program_of(self._chunk, REPLICATED)
        self._run_piece = self._run_chunk
        if self._placement.mesh is not None:
            self._run_piece = self._program_of(self._chunk, SPLIT_FIRST)
        self._run_unwatched = self._program_of(self._unwatched_chunk, SPLIT_FIRST)
        self._scoring = Evaluator(self.step, self._placement, checks_labels=loss is cross_entropy)
        self.vmapped_runs = VmappedRuns(self._chunk, self._scoring.sums)

    @property
    def compile_seconds(self) -> float:
        """Seconds spent so far in compiling training and evaluation; running is not in it."""
        programs = {self._run_start, self._run_chunk, self._run_piece, self._run_unwatched}
        programs |= self._scoring.programs
        seconds = sum(program.compile_seconds for program in programs)
        return seconds + self.vmapped_runs.compile_seconds

    def _program_of(self, function: Callable[..., Any], of_data: Any) -> TimedJit:
        """Returns the program of a chunk whose data lie so on the devices."""
        given = REPLICATED, of_data, SPLIT_SECOND, REPLICATED, REPLICATED
        # No process could fetch the rows that lie on another's devices.
        stats = REPLICATED if self._placement.spans else SPLIT_FIRST
        returned = REPLICATED, ChunkRows(REPLICATED, stats)
        return self._placement.program(function, given, returned, donate_argnums=0)

    def start(self, model: nnx.Module) -> TrainState:
        """Returns the state before the first step, with the model's parameters, copied.

        Raises:
          ValueError: if the model is not built like the trainer's.
        """
        return self._placement.put(self._run_start(*self.step.split(model)))

    def _start(self, params: Any, variables: Any) -> TrainState:
        # Copies, because the first chunk gives up the buffers of its state.
        params, variables = jax.tree.map(jnp.copy, (params, variables))
        return TrainState(params, variables, self.optimizer.transform.init(params))

    def model(self, state: TrainState) -> nnx.Module:
        """Returns the model with a copy of the state's parameters, in evaluation mode.

        The copy is on JAX's default device, wherever the training took place.
        """
        # A copy, because `run` gives up the buffers of its state.
        values = gather((state.params, state.variables))
        return self.step.model(*jax.device_put(values, may_alias=False))

    # --- the loop ------------------------------------------------------------------------------

    def _chunk(
        self,
        state: TrainState,
        data: Images,
        order: jax.Array,
        table: Mapping[str, jax.Array],
        steps: jax.Array,
        *,
        watched: bool = True,
    ) -> tuple[TrainState, ChunkRows]:
        """Takes `steps` steps, at most K; rows of the result past them mean nothing.

        order: (K, B) indices into data; table: K learning rates and momenta. With devices, the
        rows of what is watched have a first axis more, the device. watched: False watches no step.
        """

        def take(
            i: jax.Array, state: TrainState, watched: bool
        ) -> tuple[TrainState, StepMetrics, Any]:
            images, labels = data.images[order[i]], data.labels[order[i]]
            rates = table["learning_rate"][i], table["momentum"][i]
            return self.step(state, images, labels, *rates, watched=watched)

        length = len(order)
        every = min(self._every, length)
        state, rows = run_steps(take, state, length, steps, every=every, watched=watched)
        if self._placement.mesh is None:
            return state, rows
        stats = jax.tree.map(lambda a: a[None], rows.stats)
        if self._placement.spans:  # no process could fetch the others' rows
            stats = stats._replace(layers=gather_over_devices(rows.stats.layers))
        return state, rows._replace(stats=stats)

    def _unwatched_chunk(self, *args: Any) -> tuple[TrainState, ChunkRows]:
        return self._chunk(*args, watched=False)

    def run(
        self,
        state: TrainState,
        data: Images | Stream,
        order: npt.NDArray[np.integer[Any]],
        table: Mapping[str, npt.ArrayLike],
        *,
        rows: int = MAX_ROWS,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> tuple[TrainState, Record]:
        """Trains on the batches of `order` and returns the new state and the record.

        Args:
          state: where to go on from. Its buffers are given up: use the returned state.
          data: the training split, on the device or left in its files. A stream's images come in
            chunks of as many steps as resident data's, or fewer where they are large
            (`convjax.train.device_data`), while the device works on the chunk before; the results are the
            same bit for bit.
          order: (T, B) indices of the examples of each batch.
          table: "learning_rate" and "momentum" of each step, T numbers each.
          rows: the record has at most so many; beyond, neighbouring steps are merged, see
            `Record.merged`.
          on_steps: called with the number of steps whose record has arrived.

        Raises:
          ValueError: if order is empty or points outside the data, its batches do not split among
            the devices, the table lacks a column or has another length, rows is below 1, a label
            has no logit, or the state was given up to an earlier run.
          TypeError: if data or table are of another kind.
          ImportError: for a stream without Grain.
          DataError: if a stream's file cannot be read. The state is given up.
        """
        record = RecordBuilder(rows)
        check_alive(state)
        check_data(data)
        order = checked_order(order, len(data.labels), self._placement.parts)
        columns = checked_table(table, len(order))
        self.check_labels(state, data)
        layers = self._layers(state, data, order.shape[1])
        length = chunk_length(len(order), self._every)
        if isinstance(data, Stream):
            most = steps_at_once(data, order.shape[1])
            length = bounded_length(length, min(self._every, length), most)
        arrived = 0

        def fetch(kept: ChunkRows, steps: int) -> None:
            nonlocal arrived
            record.add(self._fetch(layers, kept, steps, watched=arrived % self._every == 0))
            arrived += steps
            on_steps(steps)

        with self._program(data, order, length) as program:
            state = run_chunks(
                program, self._placement.put(state), data, order, columns, length, fetch
            )
        return state, record.record()

    @contextmanager
    def _program(
        self, data: Images | Stream, order: npt.NDArray[np.int32], length: int
    ) -> Iterator[Callable[..., tuple[TrainState, ChunkRows]]]:
        """Yields what takes the next chunk of `length` steps of order."""
        if isinstance(data, Images):
            resident = self._placement.put(data)

            def whole(state: TrainState, _: Any, *given: Any) -> tuple[TrainState, ChunkRows]:
                return self._run_chunk(state, resident, *self._placement.put_order(*given))

            yield whole
            return
        with stream_chunks(data, order, length, self._placement.mesh) as chunks:
            starts = itertools.count(0, length)

            def streamed(
                state: TrainState, _: Any, __: Any, *given: Any
            ) -> tuple[TrainState, ChunkRows]:
                images, labels, rows = next(chunks)
                # Shorter than from one watched step to the next: not every chunk has one.
                watched = next(starts) % self._every == 0
                run = self._run_piece if watched else self._run_unwatched
                return run(state, Images(images, labels), *self._placement.put_order(rows, *given))

            yield streamed

    def _fetch(self, layers: WatchedNames, rows: ChunkRows, steps: int, *, watched: bool) -> Record:
        metrics, stats = jax.device_get(rows)
        # Sliced on the host: on the device each length would be a program of its own.
        metrics = jax.tree.map(lambda column: column[:steps], metrics)
        if self._placement.mesh is not None:
            # All devices hold the same parameters, each its own part of the layers' outputs.
            parts, stats = stats.layers, jax.tree.map(lambda column: column[0], stats)
            sizes = (size // self._placement.parts for size in layers.sizes)
            stats = stats._replace(layers=tuple(map(merge_parts, parts, sizes)))
        at = np.arange(0, steps, self._every)
        if self.watch is None or not watched:
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
            bins="fastai" if self.watch is None else self.watch.bins,
        )

    def _layers(self, state: TrainState, data: Images | Stream, batch_size: int) -> WatchedNames:
        """Returns the watched layers' names and values per step."""
        batch = (batch_size, *data.images.shape[1:])
        # Tracing the model takes as long as dozens of steps: once per kind of batch.
        if batch not in self._known_layers:
            images = jax.ShapeDtypeStruct(batch, data.images.dtype)
            layers = self.step.layers(state, images)
            self._check_parts(state, images, layers)
            self._known_layers[batch] = layers
        return self._known_layers[batch]

    def _check_parts(
        self, state: TrainState, images: jax.ShapeDtypeStruct, whole: WatchedNames
    ) -> None:
        batch, *image = images.shape
        part = jax.ShapeDtypeStruct((batch // self._placement.parts, *image), images.dtype)
        if self._placement.parts > 1:
            sizes = self.step.layers(state, part).sizes
            for name, size, size_of_part in zip(whole.names, whole.sizes, sizes, strict=True):
                if size != self._placement.parts * size_of_part:
                    raise ValueError(
                        f"devices must be None to watch {name}, whose output has {size} values for "
                        f"a batch and {size_of_part} for one of its {self._placement.parts} parts."
                    )

    # --- evaluation ----------------------------------------------------------------------------

    def predict(self, state: TrainState, images: npt.ArrayLike) -> jax.Array:
        """Returns the logits (N, classes) of images, uint8 (N, H, W, C), in evaluation mode.

        Raises:
          ValueError: for another dtype or number of axes, or a state given up to an earlier run.
        """
        return self._scoring.predict(state, images)

    def evaluate(
        self, state: TrainState, data: Images | Stream, *, batch_size: int = 1000
    ) -> Scores:
        """Scores every example of a split exactly once, with the running statistics.

        Args:
          data: the split, on the device or left in its files. The loss of a stream in several
            chunks may differ from that of resident data by the rounding of its sum.
          batch_size: examples at a time, rounded up to a multiple of the devices; it bounds the
            memory and changes nothing else.

        Raises:
          ValueError: if there is no example, batch_size is below 1, a label has no logit, or the
            state was given up to an earlier run.
          TypeError: if data or batch_size are of another kind.
          ImportError, DataError: as `run`, for a stream.
        """
        return self._scoring.evaluate(state, data, batch_size)

    def check_labels(self, state: TrainState, data: Images | Stream) -> None:
        """Raises ValueError for a label that the model has no logit for."""
        self._scoring.check_labels(state, data)
