"""Training: one visible loop over chunks of steps, and evaluation.

The data lie on the device as uint8. A chunk of steps is one compiled loop: each step gathers its
batch, normalises it, runs the model with its layers watched, reduces their outputs to statistics,
and updates. Nothing but the records leaves the device, and the host fetches those of one chunk
while the next runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax import lax

from convjax import parallel
from convjax import record as records
from convjax.chunks import Rows, chunk_length, loop, padded
from convjax.data import Split
from convjax.optim import Optimizer
from convjax.parallel import AXIS, EVERYWHERE, FIRST, SECOND
from convjax.program import Program
from convjax.record import Record
from convjax.stats import merge_parts
from convjax.step import Layers, LossFn, Measures, State, Step, cross_entropy, split
from convjax.watch import Watch


class Images(NamedTuple):
    """A split on the device: images uint8 (N, H, W, C), labels int32 (N,)."""

    images: jax.Array
    labels: jax.Array

    @classmethod
    def put(cls, split: Split) -> "Images":
        """Copies a split of a data set to the device."""
        return cls(jax.device_put(split.images), jax.device_put(split.labels))


class Scores(NamedTuple):
    """What an evaluation tells: mean loss, correct answers, and out of how many."""

    loss: float
    correct: int
    examples: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.correct / self.examples


class Trainer:
    """A model, an optimiser and the way images become input, compiled once for all trainings.

    Args:
      model: a Flax NNX module from images (N, H, W, C) to logits (N, classes). It gives the
        structure, and with `start(model)` the parameters; it is never changed.
      optimizer: from `convjax.optim`.
      mean, std: per channel, on the scale p/255, subtracted and divided by; (0, 1) only divides
        pixels by 255.
      loss: from logits and labels to one loss per example.
      watch: which layers are watched and how often; None for the loss, rate and momentum alone.
      devices: train on these at once, each with an equal part of every batch; None for JAX's
        default device. The result is that of one device up to rounding: batch norm, ours and
        Flax's, and the statistics are those of the whole batch. On CPU, JAX shows more than one
        device after `jax.config.update("jax_num_cpu_devices", n)`.

    Raises:
      ValueError: if the std is not positive, or devices are given twice, or to a model that draws
        random numbers.
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
        self.optimizer, self.watch = optimizer, watch
        self._mesh = None if devices is None else parallel.data_mesh(devices)
        self.step = Step(
            model,
            optimizer,
            mean=mean,
            std=std,
            loss=loss,
            watch=watch,
            synchronized=self._mesh is not None,
        )
        self._checks_labels = loss is cross_entropy
        self._every = 1 if watch is None else watch.every
        self._known_layers: dict[tuple[int, ...], Layers] = {}
        self._run_start = Program(self._start)
        self._run_chunk = Program(
            self._shared(
                self._chunk,
                (EVERYWHERE, EVERYWHERE, SECOND, EVERYWHERE, EVERYWHERE),
                (EVERYWHERE, Rows(EVERYWHERE, FIRST)),
            ),
            donate_argnums=0,
        )
        self._run_scores = Program(
            self._shared(self._scores, (EVERYWHERE, EVERYWHERE, SECOND), EVERYWHERE)
        )

    @property
    def compile_seconds(self) -> float:
        """Seconds spent so far in compiling training and evaluation; running is not in it."""
        programs = self._run_start, self._run_chunk, self._run_scores
        return sum(program.compile_seconds for program in programs)

    def start(self, model: nnx.Module) -> State:
        """Returns the state before the first step, with the model's parameters, copied.

        Raises:
          ValueError: if the model is not built like the trainer's.
        """
        training = nnx.clone(model)
        training.train()
        structure, params, variables = split(training)
        if structure != self.step.structure:
            raise ValueError(
                "model must have the structure of the model that the trainer was made with."
            )
        return self._placed(self._run_start(params, variables))

    def _start(self, params: Any, variables: Any) -> State:
        # Copies, because the first chunk gives up the buffers of its state.
        params, variables = jax.tree.map(jnp.copy, (params, variables))
        return State(params, variables, self.optimizer.transform.init(params))

    def model(self, state: State) -> nnx.Module:
        """Returns the model with the state's parameters, in evaluation mode."""
        values = state.params, state.variables
        if self._mesh is not None:
            values = jax.device_put(values, self._mesh.devices[0])
        return self.step.model(*values)

    # --- the loop ------------------------------------------------------------------------------

    def _chunk(
        self,
        state: State,
        data: Images,
        order: jax.Array,
        table: Mapping[str, jax.Array],
        steps: jax.Array,
    ) -> tuple[State, Rows]:
        """Takes `steps` steps, at most K; rows of the result past them mean nothing.

        order: (K, B) indices into data; table: K learning rates and momenta. With devices, the
        rows of the statistics have a first axis more, the device.
        """

        def take(i: jax.Array, state: State, watched: bool) -> tuple[State, Measures, Any]:
            images, labels = data.images[order[i]], data.labels[order[i]]
            rates = table["learning_rate"][i], table["momentum"][i]
            return self.step(state, images, labels, *rates, watched=watched)

        length = len(order)
        state, rows = loop(take, state, length, steps, every=min(self._every, length))
        if self._mesh is not None:
            rows = rows._replace(stats=jax.tree.map(lambda a: a[None], rows.stats))
        return state, rows

    def run(
        self,
        state: State,
        data: Images,
        order: npt.NDArray[np.integer[Any]],
        table: Mapping[str, npt.ArrayLike],
        *,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> tuple[State, Record]:
        """Trains on the batches of `order` and returns the new state and the record.

        Args:
          state: where to go on from. Its buffers are given up: use the returned state.
          data: the training split on the device.
          order: (T, B) indices of the examples of each batch.
          table: "learning_rate" and "momentum" of each step, T numbers each.
          on_steps: called with the number of steps whose record has arrived.

        Raises:
          ValueError: if order is empty or points outside the data, its batches do not split among
            the devices, or the table lacks a column or has another length.
        """
        order = np.asarray(order, np.int32)
        columns = {name: np.asarray(column) for name, column in table.items()}
        if order.ndim != 2 or not order.size:
            raise ValueError(f"order must have the shape (steps, batch), got {order.shape}.")
        parts = 1 if self._mesh is None else self._mesh.size
        if order.shape[1] % parts:
            raise ValueError(
                f"order must hold batches of a multiple of {parts}, one part for each device, got "
                f"batches of {order.shape[1]}."
            )
        examples = len(data.labels)
        if order.min() < 0 or order.max() >= examples:
            raise ValueError(
                f"order must hold indices from 0 to {examples - 1}, "
                f"got {order.min()} to {order.max()}."
            )
        if set(columns) != {"learning_rate", "momentum"}:
            raise ValueError(
                f"table must hold learning_rate and momentum, got {', '.join(sorted(columns))}."
            )
        for name, column in columns.items():
            if column.shape != (len(order),):
                raise ValueError(
                    f"table[{name!r}] must have one number per step ({len(order)}), "
                    f"got the shape {column.shape}."
                )
        layers = self._layers(state, data, order.shape[1])
        length = chunk_length(len(order), self._every)
        state, data = self._placed((state, data))
        pieces: list[Record] = []
        running: tuple[Rows, int] | None = None
        for first in range(0, len(order), length):
            part = slice(first, first + length)
            steps = len(order[part])
            chunk_table = {name: padded(c[part], length) for name, c in columns.items()}
            state, rows = self._run_chunk(
                state, data, padded(order[part], length), chunk_table, np.int32(steps)
            )
            # Fetching waits for a chunk: do so only once the next is on its way.
            if running is not None:
                pieces.append(self._fetch(layers, *running))
                on_steps(pieces[-1].steps)
            running = rows, steps
        assert running is not None  # order is not empty
        pieces.append(self._fetch(layers, *running))
        on_steps(pieces[-1].steps)
        return state, records.concatenate(pieces)

    def _fetch(self, layers: Layers, rows: Rows, steps: int) -> Record:
        measures, stats = jax.device_get(rows)
        # Sliced on the host: on the device each length would be a program of its own.
        measures = jax.tree.map(lambda column: column[:steps], measures)
        if self._mesh is not None:
            sizes = (size // self._mesh.size for size in layers.sizes)
            stats = tuple(map(merge_parts, stats, sizes))
        watched = np.arange(0, steps, self._every)
        if self.watch is None:
            watched = watched[:0]
        stats = jax.tree.map(lambda column: column[: len(watched)], stats)
        return records.from_steps(
            layers.names,
            layers.sizes,
            measures.loss,
            measures.learning_rate,
            measures.momentum,
            watched,
            stats,
        )

    def _layers(self, state: State, data: Images, batch_size: int) -> Layers:
        """Returns the watched layers' names and values per step."""
        batch = (batch_size, *data.images.shape[1:])
        # Tracing the model takes as long as dozens of steps: once per kind of batch.
        if batch not in self._known_layers:
            images = jax.ShapeDtypeStruct(batch, data.images.dtype)
            self._known_layers[batch] = self.step.layers(state, images)
        layers = self._known_layers[batch]
        # Cross entropy of a label without a logit would be NaN, without a word.
        if self._checks_labels and int(data.labels.max()) >= layers.classes:
            raise ValueError(
                f"labels must be below the model's {layers.classes} logits, "
                f"got {int(data.labels.max())}."
            )
        return layers

    # --- evaluation ----------------------------------------------------------------------------

    def evaluate(self, state: State, data: Images, *, batch_size: int = 1000) -> Scores:
        """Scores every example of a split exactly once, with the running statistics.

        Args:
          batch_size: examples at a time; it bounds the memory and changes nothing else.

        Raises:
          ValueError: if there is no example, or batch_size is below 1.
        """
        examples = len(data.labels)
        if not examples:
            raise ValueError("data must hold at least one example, got none.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        parts = 1 if self._mesh is None else self._mesh.size
        size = -(-min(batch_size, examples) // parts) * parts
        batches = -(-examples // size)
        order = np.full(batches * size, -1, np.int32)
        order[:examples] = np.arange(examples)
        state, data = self._placed((state, data))
        total, correct = self._run_scores(state, data, order.reshape(batches, size))
        return Scores(float(total) / examples, int(correct), examples)

    def _scores(self, state: State, data: Images, order: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sums loss and correct answers over the rows of order, in which −1 counts for nothing."""

        def body(sums: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[Any, None]:
            counted = rows >= 0
            losses, hits = self.step.scores(state, data.images[rows], data.labels[rows])
            losses = jnp.where(counted, losses, 0)
            return (sums[0] + losses.sum(), sums[1] + (hits & counted).sum(dtype=jnp.int32)), None

        zero = jnp.zeros((), jax.tree.leaves(state.params)[0].dtype)
        sums = lax.scan(body, (zero, jnp.int32(0)), order)[0]
        return sums if self._mesh is None else lax.psum(sums, AXIS)

    # --- devices -------------------------------------------------------------------------------

    def _shared(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Any:
        """Returns the function as it runs on all devices of the training at once."""
        if self._mesh is None:
            return function
        return parallel.on_devices(function, self._mesh, in_specs, out_specs)

    def _placed(self, tree: Any) -> Any:
        """Returns the tree on all devices of the training; what is there already stays."""
        return tree if self._mesh is None else parallel.everywhere(tree, self._mesh)
