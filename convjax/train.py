"""Training: the pure step, one visible loop over chunks of steps, and evaluation.

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
import optax
from flax import nnx
from jax import lax

from convjax import parallel
from convjax import record as records
from convjax.chunks import Measures, Rows, chunk_length, loop, padded
from convjax.data import Split
from convjax.optim import Optimizer
from convjax.parallel import AXIS, EVERYWHERE, FIRST, SECOND
from convjax.program import Program
from convjax.record import Record
from convjax.stats import ActivationStats, merge_parts
from convjax.watch import Watch

Layers = tuple[tuple[str, ...], tuple[int, ...]]  # names, and values per step
LossFn = Callable[[jax.Array, jax.Array], jax.Array]


class State(NamedTuple):
    """All that a training changes, as pure trees of arrays."""

    params: Any
    variables: Any  # the model's other variables: running statistics of batch norm
    opt_state: Any


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


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns −log softmax(logits)[label] per example, shape (N,)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


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
        self.optimizer = optimizer
        self._mean, self._std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if not (np.isfinite(self._mean).all() and (self._std > 0).all()):
            raise ValueError(f"mean must be finite and std positive, got {mean!r} and {std!r}.")
        self._loss, self.watch = loss, watch
        # Two structures of one model: batch norm uses the batch in one, running values in the
        # other. clone() keeps the caller's model as it was.
        training, evaluating = nnx.clone(model), nnx.clone(model)
        training.train()
        evaluating.eval()
        self._train_def = nnx.graphdef(training)
        self._eval_def = nnx.graphdef(evaluating)
        # Within a step on several devices, batch norm is synchronised.
        self._step_def, self._mesh = self._train_def, None
        if devices is not None:
            self._mesh = parallel.data_mesh(devices)
            parallel.synchronize(training)
            self._step_def = nnx.graphdef(training)
        self._every = 1 if watch is None else watch.every
        self._known_layers: dict[tuple[int, ...], tuple[Layers, int]] = {}
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
        graphdef, params, variables = _split(training)
        if graphdef != self._train_def:
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
        return nnx.merge(self._eval_def, *values)

    # --- the pure step -----------------------------------------------------------------------

    def step(
        self,
        state: State,
        images: jax.Array,
        labels: jax.Array,
        learning_rate: jax.Array,
        momentum: jax.Array,
        *,
        watched: bool = True,
    ) -> tuple[State, Measures, tuple[ActivationStats, ...]]:
        """Takes one training step; pure, so that jit, scan and vmap apply to it.

        Args:
          images: uint8 (N, H, W, C); labels: int (N,). With devices, those of this device: the step
            then belongs within `jax.shard_map` over the axis "batch".
          learning_rate, momentum: scalars, written into the optimiser's state for this step.
          watched: False takes no statistics, and the compiler drops what only they need.

        Returns:
          The state after the step, what it told, and the statistics of the watched layers, with
          devices those of this device's part.
        """

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, outputs, variables = self._forward(
                self._step_def, params, state.variables, images
            )
            # A tuple keeps the order of the calls; JAX sorts the keys of a dictionary.
            return jnp.mean(self._loss(logits, labels)), (variables, tuple(outputs.values()))

        (loss, (variables, outputs)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        if self._mesh is not None:
            loss, grads = parallel.mean_over_devices((loss, grads))
        opt_state = self.optimizer.set(state.opt_state, learning_rate, momentum)
        updates, opt_state = self.optimizer.transform.update(grads, opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        measures = Measures(loss, *self.optimizer.applied(opt_state))
        stats = self.watch.stats(outputs) if self.watch is not None and watched else ()
        return State(params, variables, opt_state), measures, stats

    def _forward(
        self, graphdef: Any, params: Any, variables: Any, images: jax.Array
    ) -> tuple[Any, Any, Any]:
        """Returns logits, the outputs of the watched layers by name, and the new variables."""
        # copy: the variables belong to this trace, so that batch norm may update them.
        model = nnx.merge(graphdef, params, variables, copy=True)
        x = self.normalize(images, _dtype(params))
        logits, outputs = (model(x), {}) if self.watch is None else self.watch.outputs(model, x)
        return logits, outputs, _split(model)[2]

    def normalize(self, images: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
        """Turns uint8 images (N, H, W, C) into the model's input: (p/255 − mean)/std."""
        scaled = images.astype(dtype) / 255
        return (scaled - self._mean.astype(dtype)) / self._std.astype(dtype)

    # --- chunks of steps on the device ---------------------------------------------------------

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
            sizes = (size // self._mesh.size for size in layers[1])
            stats = tuple(map(merge_parts, stats, sizes))
        watched = np.arange(0, steps, self._every)
        if self.watch is None:
            watched = watched[:0]
        stats = jax.tree.map(lambda column: column[: len(watched)], stats)
        return records.from_steps(
            *layers,
            measures.loss,
            measures.learning_rate,
            measures.momentum,
            watched,
            stats,
        )

    def _layers(self, state: State, data: Images, batch_size: int) -> Layers:
        """Returns the watched layers' names and values per step, without computing anything."""
        batch = (batch_size, *data.images.shape[1:])
        # Tracing the model takes as long as dozens of steps: once per kind of batch.
        if batch not in self._known_layers:
            self._known_layers[batch] = self._trace_layers(state, batch, data.images.dtype)
        layers, classes = self._known_layers[batch]
        # Cross entropy of a label without a logit would be NaN, without a word.
        if self._loss is cross_entropy and int(data.labels.max()) >= classes:
            raise ValueError(
                f"labels must be below the model's {classes} logits, got {int(data.labels.max())}."
            )
        return layers

    def _trace_layers(self, state: State, batch: tuple[int, ...], dtype: Any) -> tuple[Layers, int]:
        """Returns names and sizes of the watched layers for a batch, and the number of logits."""
        names: list[str] = []

        def forward(params: Any, variables: Any, images: jax.Array) -> Any:
            logits, outputs, _ = self._forward(self._train_def, params, variables, images)
            names.extend(outputs)
            return logits, tuple(outputs.values())

        images = jax.ShapeDtypeStruct(batch, dtype)
        logits, outputs = jax.eval_shape(forward, state.params, state.variables, images)
        return (tuple(names), tuple(output.size for output in outputs)), logits.shape[-1]

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

        model = nnx.merge(self._eval_def, state.params, state.variables)

        def body(sums: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[Any, None]:
            counted = rows >= 0
            images, labels = data.images[rows], data.labels[rows]
            logits = model(self.normalize(images, _dtype(state.params)))
            losses = jnp.where(counted, self._loss(logits, labels), 0)
            hits = counted & (jnp.argmax(logits, -1) == labels)
            return (sums[0] + losses.sum(), sums[1] + hits.sum(dtype=jnp.int32)), None

        zero = jnp.zeros((), _dtype(state.params))
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


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Returns (structure, parameters, all other variables)."""
    graphdef, params, *others = nnx.split(model, nnx.Param, ...)
    return graphdef, params, others[0]


def _dtype(params: Any) -> Any:
    """Returns the dtype in which a model computes: that of its parameters."""
    return jax.tree.leaves(params)[0].dtype
