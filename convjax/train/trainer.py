"""Training: one visible loop over chunks of steps.

The data lie on the device as uint8. A chunk of steps is one compiled loop: each step gathers its
batch, normalises it, runs the model, reduces the outputs of the watched layers to statistics, and
updates. Only the records leave the device, and the host fetches those of one chunk while the next
runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from convjax._display import tree_text
from convjax.data import Stream
from convjax.optim.optimizers import Optimizer, as_optimizer
from convjax.parallel.mesh import gather
from convjax.parallel.placement import Placement
from convjax.parallel.timed_jit import TimedJit
from convjax.stats.record import Record
from convjax.stats.record_builder import MAX_ROWS, RecordBuilder
from convjax.stats.watch import Watch
from convjax.train._arguments import check_images, checked_order, checked_table
from convjax.train.augmentation import (
    AugmentedBatch,
    Augmenter,
    ImageFunction,
    Mixup,
    step_columns,
    step_key,
)
from convjax.train.chunk_programs import ChunkPrograms
from convjax.train.chunk_records import ChunkRecorder
from convjax.train.data_checks import DataChecks
from convjax.train.device_data import Images, compared, steps_at_once
from convjax.train.evaluation import SCORED_AT_ONCE, Evaluator, Scores
from convjax.train.losses import PerExample, cross_entropy
from convjax.train.metric_writer import AnyWriter, MetricOutput
from convjax.train.scan_loop import ChunkRows, bounded_length, chunk_length, run_chunks
from convjax.train.step import PerChannel, TrainState, TrainStep
from convjax.train.vmapped_runs import VmappedRuns

# Settings of JAX on which results depend.
_JAX_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")


class Trainer:
    """A model, an optimiser and the normalisation of its images, compiled once for all trainings.

    Args:
      model: a Flax NNX module from images (N, H, W, C), or vectors (N, F), to outputs with the
        examples first, such as logits (N, classes). It gives the structure and is never changed;
        `start(model)` takes the parameters. `convjax.nn.LinenModel` makes one of a Linen module.
      optimizer: `convjax.adam()`, `convjax.sgd()`, or `convjax.from_optax(optax.lion)` of any of
        Optax; a function of the learning rate, such as `optax.lion`, is passed to `from_optax`.
      mean, std: per channel, of uint8 images on the scale p/255. The mean is subtracted and the std
        divided by; the default (0, 1) only divides pixels by 255. Images of floating point are not
        divided by 255.
      loss: from outputs and labels to one loss per example: `convjax.train.cross_entropy`,
        `binary_cross_entropy`, `squared_error`, or a function of one's own.
      metrics: functions like the loss, in a list or by name, whose means an evaluation returns. By
        default the accuracy, where labels are classes.
      watch: the layers that are watched and how often; None for the loss, rate and momentum alone.
      devices: train on these at once, each with an equal part of every batch, whose size must be a
        multiple of their number; None for JAX's default device. The result is that of one device up
        to rounding: batch norm, this library's and Flax's, and the statistics are those of the
        whole batch. Every device holds the parameters and the data. On CPU, JAX has more than one
        device after `jax.config.update("jax_num_cpu_devices", n)`. After
        `convjax.distributed.initialize` the devices may be those of several processes, each of
        which makes the same calls with the same arguments and gets the same results.
      augment: random changes of the training images inside the step, in this order: functions of a
        key and an image (H, W, C) on the scale p/255, such as `convjax.train.RandomShift(4)`, the
        last of which may be `convjax.train.Mixup()`. They apply to the steps of `run` alone, not to
        `evaluate` and `predict`, nor to the evaluation loss that a watch records of the same batch.
        None leaves the images as they are, in the same program as without this argument.

    Attributes:
      step: the training step, a pure function.
      augment: as given.
      chunks: the programs that take a chunk of steps.
      vmapped_runs: the programs for several trainings at once, which `convjax.sweep` runs.

    Raises:
      TypeError: if an argument is of another type.
      ValueError: if the std is not positive, or for devices that `convjax.parallel.mesh.data_mesh`
        rejects or over which the model cannot be split (`convjax.nn.sync_batch_norm.check_splits`).

    Examples:
      >>> import numpy as np
      >>> import convjax
      >>> from flax import nnx
      >>> model = convjax.LinearNet((16, 3), rngs=nnx.Rngs(0))
      >>> trainer = convjax.Trainer(model, convjax.sgd())
      >>> random = np.random.default_rng(0)
      >>> pixels = random.integers(0, 256, (20, 4, 4, 1), np.uint8)
      >>> labels = np.arange(20, dtype=np.int32) % 3
      >>> images = convjax.Images.put(convjax.data.Split(pixels, labels))
      >>> order = random.integers(0, 20, (30, 5))
      >>> table = convjax.constant(0.1).table(30)
      >>> state, record = trainer.run(trainer.start(model), images, order, table)
      >>> record
      Record(30 steps, 1 layers)
      >>> trainer.evaluate(state, images).examples
      20
      >>> trainer.predict(state, pixels[:2]).shape
      (2, 3)
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: Optimizer | Callable[..., Any],
        *,
        mean: PerChannel = 0.0,
        std: PerChannel = 1.0,
        loss: PerExample = cross_entropy,
        metrics: Mapping[str, PerExample] | Sequence[PerExample] | None = None,
        watch: Watch | None = Watch(),  # noqa: B008  # frozen
        devices: Sequence[jax.Device] | None = None,
        augment: Sequence[ImageFunction | Mixup] | None = None,
    ):
        optimizer = as_optimizer(optimizer)
        self.optimizer, self.watch, self.devices = optimizer, watch, devices
        self._placement = Placement(devices)
        self.step = TrainStep(
            model,
            optimizer,
            mean=mean,
            std=std,
            loss=loss,
            metrics=metrics,
            watch=watch,
            synchronized=self._placement.mesh is not None,
            augment=augment,
        )
        self.augment = augment
        self._compared = {
            "mean": self.step.mean,
            "std": self.step.std,
            "loss": _names(loss),
            "metrics": _names(metrics),
            "watch": watch,
            "augment": augment,
        }
        parameters = tree_text(nnx.state(model, nnx.Param), "parameters")
        self._model = f"{type(model).__name__} with {parameters}"
        self._every = 1 if watch is None else watch.every
        self._recorder = ChunkRecorder(self.step, self._placement, watch)
        self._run_start = TimedJit(self._start)
        dtype = jax.tree.leaves(nnx.state(model, nnx.Param))[0].dtype
        # Whole batches on one device, wherever the training takes place.
        whole = None if augment is None else Augmenter(augment)
        self._show = TimedJit(
            lambda key, images, labels: self.step.augmented(key, images, labels, dtype, whole)
        )
        self.chunks = ChunkPrograms(self.step, self._placement, self._every)
        self._checks = DataChecks(self.step)
        self._scoring = Evaluator(self.step, self._placement, self._checks)
        self.vmapped_runs = VmappedRuns(self.chunks.take, self._scoring.sums)

    def __repr__(self) -> str:
        watched = "nothing"
        if self.watch is not None:
            kept = [f.name for f in fields(self.watch) if getattr(self.watch, f.name) is True]
            watched = f"{', '.join(kept)} every {self.watch.every:,} steps".replace(
                "1 steps", "step"
            )
        count = 0 if self.devices is None else len(self.devices)
        devices = f", {count:,} device{'s' * (count != 1)}" if count else ""
        names = [getattr(f, "__name__", type(f).__name__) for f in self.augment or ()]
        augment = f", augmenting by {', '.join(names)}" if names else ""
        return f"Trainer({self._model}, watching {watched}{devices}{augment})"

    @property
    def compile_seconds(self) -> float:
        """Seconds spent so far in compiling training and evaluation, without running them."""
        programs = {self._run_start} | self.chunks.programs | self._scoring.programs
        seconds = sum(program.compile_seconds for program in programs)
        return seconds + self.vmapped_runs.compile_seconds

    def agree(self, call: str, **values: Any) -> None:
        """Checks that all processes of the devices have the same values and trainer settings.

        `start`, `run`, `evaluate` and `convjax.fit` call it with their arguments. With one process
        it does nothing.

        Args:
          call: what the process does, for messages.
          **values: as for `convjax.distributed.agree`, or a stream.

        Raises:
          ProcessError: in every process, if a value differs; it is a ValueError.
        """
        if self._placement.spans:
            settings = {name: getattr(jax.config, name) for name in _JAX_SETTINGS}
            given = {name: compared(value) for name, value in values.items()}
            self._placement.agree(call, settings | self._compared | given)

    def start(self, model: nnx.Module) -> TrainState:
        """Returns the state before the first step, with a copy of the model's parameters.

        Raises:
          TypeError: if the model is not a Flax NNX module.
          ValueError: if its structure differs from that of the trainer's model, or the parameters
            are not those of the other processes.
        """
        state = self._run_start(*self.step.split(model))
        self.agree("Trainer.start", model=state)
        return self._placement.put(state)

    def _start(self, params: Any, variables: Any) -> TrainState:
        # Copies, because the first chunk donates the buffers of its state.
        params, variables = jax.tree.map(jnp.copy, (params, variables))
        return TrainState(params, variables, self.optimizer.transform.init(params))

    def model(self, state: TrainState) -> nnx.Module:
        """Returns the model with a copy of the state's parameters, in evaluation mode.

        The copy is on JAX's default device, wherever the training took place.
        """
        # A copy, because `run` donates the buffers of its state.
        values = gather((state.params, state.variables))
        return self.step.model(*jax.device_put(values, may_alias=False))

    # --- the loop ------------------------------------------------------------------------------

    def run(
        self,
        state: TrainState,
        data: Images | Stream,
        order: Int[Array | np.ndarray, "T B"],
        table: Mapping[str, Num[Array | np.ndarray, " T"]],
        *,
        rows: int = MAX_ROWS,
        on_steps: Callable[[int], None] = lambda steps: None,
        seed: int = 0,
        first_step: int = 0,
        writer: AnyWriter = None,
    ) -> tuple[TrainState, Record]:
        """Trains on the batches of `order` and returns the new state and the record.

        Args:
          state: from `start` or an earlier call. Its buffers are donated: use the returned state.
          data: the training split, on the device or left in its files. The images of a stream
            arrive in chunks while the device works on the chunk before, of as many steps as with
            resident data, or fewer if they are large (`convjax.train.device_data`). The results are
            the same bit for bit.
          order: indices of the examples of each batch.
          table: "learning_rate" and "momentum" of each step.
          rows: the most rows of the record. For more steps, neighbouring steps are merged,
            see `Record.merged`.
          on_steps: called with the number of steps whose record has arrived.
          seed: of the augmentations; ignored without them.
          first_step: number of the first step in the whole training, which the augmentations depend
            on, and which messages name: a training in two calls passes the steps of the first to
            the second.
          writer: gets the scalars of every step while the device works on the next chunk, see
            `convjax.train.MetricWriter`; of several processes only process 0 passes one.

        Raises:
          ValueError: if order is empty or out of range, its batches cannot be split over the
            devices, the table lacks a column or has another length, rows is below 1, a label has no
            logit, the state was passed to an earlier run, or another process passed other values.
          TypeError: if data or table are of another type.
          ImportError: for a stream without Grain.
          DataError: if a file of a stream cannot be read; it names the file and the step. The state
            is lost.
        """
        record, output = RecordBuilder(rows), MetricOutput.of(writer)
        self.check(state, data)
        order = checked_order(order, len(data.labels), self._placement.parts)
        columns = checked_table(table, len(order))
        if self.augment is not None:
            columns |= step_columns(seed, first_step, len(order))
        self.agree("Trainer.run", state=state, data=data, order=order, table=columns)
        layers = self._recorder.layers(state, data, order.shape[1])
        length = chunk_length(len(order), self._every, self._placement.platform)
        if isinstance(data, Stream):
            most = steps_at_once(data, order.shape[1])
            length = bounded_length(length, min(self._every, length), most)
        arrived = 0

        def fetch(kept: ChunkRows, steps: int) -> None:
            nonlocal arrived
            watched = arrived % self._every == 0
            piece = self._recorder.record(layers, kept, steps, watched=watched)
            record.add(piece)
            output.record(piece, first_step + arrived)
            arrived += steps
            on_steps(steps)

        with self.chunks.reading(data, order, length, first_step) as program:
            state = run_chunks(
                program, self._placement.put(state), data, order, columns, length, fetch
            )
        output.flush()
        return state, record.record()

    def augmented(
        self,
        images: Num[Array | np.ndarray, "N H W C"],
        labels: Int[Array | np.ndarray, " N"],
        *,
        step: int = 0,
        seed: int = 0,
    ) -> AugmentedBatch:
        """Returns a batch as the network sees it at a step, before the normalisation, to look at.

        Args:
          images, labels: of the batch, in its order: `pixels[order[step]]`.
          step: number of the step in the whole training.
          seed: of the augmentations, as for `run`.

        Returns:
          Arrays of the host. `convjax.plots.show_batch(batch.pixels, batch.labels, names)` draws
          them.

        Raises:
          TypeError, ValueError: for images or labels that `run` would reject, and numbers that are
            not whole, or too large.

        Examples:
          >>> import numpy as np
          >>> import convjax
          >>> from flax import nnx
          >>> model = convjax.LinearNet((16, 3), rngs=nnx.Rngs(0))
          >>> trainer = convjax.Trainer(model, convjax.sgd(), augment=[convjax.train.Cutout(2)])
          >>> pixels = np.full((5, 4, 4, 1), 255, np.uint8)
          >>> batch = trainer.augmented(pixels, np.arange(5) % 3, step=7)
          >>> batch.pixels.shape, sorted(np.unique(batch.pixels).tolist())
          ((5, 4, 4, 1), [0, 255])
        """
        images, labels = np.asarray(images), np.asarray(labels)
        check_images(images, labels, "batch")
        columns = step_columns(seed, step, 1)
        key = step_key(columns["seed"][0], columns["step"][0])
        found = self._show(key, images, labels)
        return AugmentedBatch(*jax.device_get(tuple(found)))

    # --- evaluation ----------------------------------------------------------------------------

    def predict(
        self, state: TrainState, images: Num[Array | np.ndarray, "N ..."]
    ) -> Float[Array, "N ..."]:
        """Returns the model's outputs for images, such as logits, in evaluation mode.

        Raises:
          TypeError, ValueError: for images that `Images` may not hold, or a state passed to an
            earlier run.
        """
        return self._scoring.predict(state, images)

    def evaluate(
        self, state: TrainState, data: Images | Stream, *, batch_size: int = SCORED_AT_ONCE
    ) -> Scores:
        """Scores every example of a split exactly once, with the running statistics.

        Args:
          state: from `start` or `run`.
          data: the split, on the device or left in its files. The loss of a stream in several
            chunks may differ from that of resident data by the rounding of its sum.
          batch_size: examples at a time, rounded up to a multiple of the devices. It bounds the
            memory and changes nothing else.

        Raises:
          ValueError: if there is no example, batch_size is below 1, a label has no logit, or the
            state was passed to an earlier run, or another process passed other values.
          TypeError: if data or batch_size are of another type.
          ImportError: for a stream without Grain.
          DataError: if a file of a stream cannot be read.
        """
        return self._scoring.evaluate(state, data, batch_size, self.agree)

    def check(
        self,
        state: TrainState,
        data: Images | Stream,
        name: str = "data",
        *,
        training: bool = True,
    ) -> None:
        """Checks that data, model, loss and metrics fit together, as all do before the first step.

        What is unlikely, such as a network that ends in a softmax, is said once.

        Args:
          state: from `start` or `run`.
          data: the split.
          name: of the argument, for messages.
          training: whether the split is to train on, and has every class.

        Raises:
          ValueError: if images or labels are not finite, mean and std are not on the scale of the
            images, the model does not take the images, the loss or a metric is not one number per
            example, or a label has no logit.
          TypeError: if data are of another type, or labels of another kind than the loss takes.
        """
        self._checks.check(state, data, name, training=training)


def _names(functions: Any) -> Any:
    """Returns functions, alone, in a list or by name, as texts."""
    if isinstance(functions, Mapping):
        return {name: _names(function) for name, function in functions.items()}
    if isinstance(functions, Sequence):
        return [_names(function) for function in functions]
    return getattr(functions, "__qualname__", repr(functions))
