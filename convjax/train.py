"""Training: one pure step, chunks of steps on the device, and one visible loop.

The data lie on the device as uint8. A chunk of steps is one compiled loop: each step gathers its
batch, normalises it, runs the model with its layers watched, reduces their outputs to statistics,
and updates. Nothing but the records leaves the device, and the host fetches those of one chunk
while the next runs.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx
from jax import lax

from convjax import record as records
from convjax.capture import Select, capture, has_parameters
from convjax.data import Split
from convjax.optim import Optimizer
from convjax.record import Record
from convjax.stats import ActivationStats, activation_stats

Watched = tuple[tuple[str, ...], tuple[int, ...]]  # names, and values per step
LossFn = Callable[[jax.Array, jax.Array], jax.Array]

# Steps per call of the compiled program. Long enough that dispatch is free (a measured epoch is no
# longer than in one call), short enough for a progress bar; shorter remainders run in the same
# program, whose number of steps is an argument.
CHUNK = 128


class State(NamedTuple):
    """All that a training changes, as pure trees of arrays."""

    params: Any
    variables: Any  # the model's other variables: running statistics of batch norm
    opt_state: Any


class Measures(NamedTuple):
    """What one step tells; in a chunk every array has the step as first axis."""

    loss: jax.Array
    learning_rate: jax.Array
    momentum: jax.Array
    stats: tuple[ActivationStats, ...]  # one per watched layer


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
      select: which layers are watched; the default is those with parameters.
    """

    def __init__(
        self,
        model: nnx.Module,
        optimizer: Optimizer,
        *,
        mean: npt.ArrayLike = 0.0,
        std: npt.ArrayLike = 1.0,
        loss: LossFn = cross_entropy,
        select: Select = has_parameters,
    ):
        self.optimizer = optimizer
        self._mean, self._std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if not (np.isfinite(self._mean).all() and (self._std > 0).all()):
            raise ValueError(f"mean must be finite and std positive, got {mean!r} and {std!r}.")
        self._loss, self._select = loss, select
        # Two structures of one model: batch norm uses the batch in one, running values in the
        # other. clone() keeps the caller's model as it was.
        training, evaluating = nnx.clone(model), nnx.clone(model)
        training.train()
        evaluating.eval()
        self._train_def = nnx.graphdef(training)
        self._eval_def = nnx.graphdef(evaluating)
        self._run_chunk = jax.jit(self._chunk, donate_argnums=0)
        self._run_scores = jax.jit(self._scores)

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
        # Copies, because the first chunk gives up the buffers of its state.
        params, variables = jax.tree.map(jnp.copy, (params, variables))
        return State(params, variables, self.optimizer.transform.init(params))

    def model(self, state: State) -> nnx.Module:
        """Returns the model with the state's parameters, in evaluation mode."""
        return nnx.merge(self._eval_def, state.params, state.variables)

    # --- the pure step -----------------------------------------------------------------------

    def step(
        self,
        state: State,
        images: jax.Array,
        labels: jax.Array,
        learning_rate: jax.Array,
        momentum: jax.Array,
    ) -> tuple[State, Measures]:
        """Takes one training step; pure, so that jit, scan and vmap apply to it.

        Args:
          images: uint8 (N, H, W, C); labels: int (N,).
          learning_rate, momentum: scalars, written into the optimiser's state for this step.
        """

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            # copy: the variables belong to this trace, so that batch norm may update them.
            model = nnx.merge(self._train_def, params, state.variables, copy=True)
            x = self.normalize(images, _dtype(params))
            logits, outputs = capture(model, x, select=self._select)
            _, _, variables = _split(model)
            return jnp.mean(self._loss(logits, labels)), (variables, outputs)

        (loss, (variables, outputs)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        opt_state = self.optimizer.set(state.opt_state, learning_rate, momentum)
        updates, opt_state = self.optimizer.transform.update(grads, opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        applied = self.optimizer.applied(opt_state)
        stats = tuple(activation_stats(output) for output in outputs.values())
        return State(params, variables, opt_state), Measures(loss, *applied, stats)

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
    ) -> tuple[State, Measures]:
        """Takes `steps` steps, at most len(order); rows of the result past them are zeros.

        order: (K, B) indices into data; table: K learning rates and momenta.
        """

        def one(i: jax.Array, state: State) -> tuple[State, Measures]:
            images, labels = data.images[order[i]], data.labels[order[i]]
            return self.step(state, images, labels, table["learning_rate"][i], table["momentum"][i])

        def body(i: jax.Array, carry: tuple[State, Measures]) -> tuple[State, Measures]:
            state, kept = carry
            state, measures = one(i, state)
            kept = jax.tree.map(lambda rows, row: rows.at[i].set(row), kept, measures)
            return state, kept

        rows = jax.eval_shape(one, 0, state)[1]
        kept = jax.tree.map(lambda row: jnp.zeros((len(order), *row.shape), row.dtype), rows)
        # A loop whose length is an argument, instead of lax.scan: one program for every number
        # of steps, so that the remainder of an epoch compiles nothing.
        return lax.fori_loop(0, steps, body, (state, kept))

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
          ValueError: if order is empty or points outside the data, or the table lacks a column or
            has another length.
        """
        order = np.asarray(order, np.int32)
        columns = {name: np.asarray(column) for name, column in table.items()}
        if order.ndim != 2 or not order.size:
            raise ValueError(f"order must have the shape (steps, batch), got {order.shape}.")
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
        watched = self._watch(state, data, order.shape[1])
        pieces: list[Record] = []
        running: tuple[Measures, int] | None = None
        for first in range(0, len(order), CHUNK):
            rows = slice(first, first + CHUNK)
            steps = len(order[rows])
            chunk_table = {name: _padded(column[rows]) for name, column in columns.items()}
            state, measures = self._run_chunk(
                state, data, _padded(order[rows]), chunk_table, np.int32(steps)
            )
            # Fetching waits for a chunk: do so only once the next is on its way.
            if running is not None:
                pieces.append(self._fetch(watched, *running))
                on_steps(pieces[-1].steps)
            running = measures, steps
        assert running is not None  # order is not empty
        pieces.append(self._fetch(watched, *running))
        on_steps(pieces[-1].steps)
        return state, records.concatenate(pieces)

    def _fetch(self, watched: Watched, measures: Measures, steps: int) -> Record:
        layers, sizes = watched
        # Sliced on the host: on the device each length would be a program of its own.
        loss, learning_rate, momentum, stats = jax.tree.map(
            lambda rows: rows[:steps], jax.device_get(measures)
        )
        return records.from_steps(layers, sizes, loss, learning_rate, momentum, stats)

    def _watch(self, state: State, data: Images, batch_size: int) -> Watched:
        """Returns the watched layers' names and values per step, without computing anything."""
        names: list[str] = []

        def forward(params: Any, variables: Any, images: jax.Array) -> Any:
            model = nnx.merge(self._train_def, params, variables, copy=True)
            x = self.normalize(images, _dtype(params))
            logits, outputs = capture(model, x, select=self._select)
            names.extend(outputs)
            return logits, tuple(outputs.values())

        images = jax.ShapeDtypeStruct((batch_size, *data.images.shape[1:]), data.images.dtype)
        logits, outputs = jax.eval_shape(forward, state.params, state.variables, images)
        # Cross entropy of a label without a logit would be NaN, without a word.
        if self._loss is cross_entropy and int(data.labels.max()) >= logits.shape[-1]:
            raise ValueError(
                f"labels must be below the model's {logits.shape[-1]} logits, "
                f"got {int(data.labels.max())}."
            )
        return tuple(names), tuple(output.size for output in outputs)

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
        batches = -(-examples // min(batch_size, examples))
        order = np.full(batches * min(batch_size, examples), -1, np.int32)
        order[:examples] = np.arange(examples)
        total, correct = self._run_scores(state, data, order.reshape(batches, -1))
        return Scores(float(total) / examples, int(correct), examples)

    def _scores(self, state: State, data: Images, order: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sums loss and correct answers over the rows of order, in which −1 counts for nothing."""
        model = self.model(state)

        def body(sums: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[Any, None]:
            counted = rows >= 0
            images, labels = data.images[rows], data.labels[rows]
            logits = model(self.normalize(images, _dtype(state.params)))
            losses = jnp.where(counted, self._loss(logits, labels), 0)
            hits = counted & (jnp.argmax(logits, -1) == labels)
            return (sums[0] + losses.sum(), sums[1] + hits.sum(dtype=jnp.int32)), None

        zero = jnp.zeros((), _dtype(state.params))
        return lax.scan(body, (zero, jnp.int32(0)), order)[0]


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    """Returns (structure, parameters, all other variables)."""
    graphdef, params, *others = nnx.split(model, nnx.Param, ...)
    return graphdef, params, others[0]


def _dtype(params: Any) -> Any:
    """Returns the dtype in which a model computes: that of its parameters."""
    return jax.tree.leaves(params)[0].dtype


def _padded(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Fills up to CHUNK rows with zeros, which the chunk does not reach."""
    return np.pad(rows, [(0, CHUNK - len(rows))] + [(0, 0)] * (rows.ndim - 1))
