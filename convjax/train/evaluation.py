"""Evaluation: the scores of every example, with the running statistics, and logits of images."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, Num

from convjax._checks import check_whole
from convjax._precision import at_least_float32
from convjax.data import Stream
from convjax.parallel.mesh import AXIS, REPLICATED, SPLIT_FIRST, SPLIT_SECOND, gather
from convjax.parallel.placement import Placement
from convjax.parallel.timed_jit import TimedJit
from convjax.train.data_checks import DataChecks
from convjax.train.device_data import Images, steps_at_once, stream_chunks
from convjax.train.scan_loop import scoring_order
from convjax.train.step import TrainState, TrainStep

# Examples that are scored at a time. With 1,000 the chapter's network takes more than twice as long
# for each on CPU: its memory is then beyond the 32 MiB that glibc's malloc reuses, and new pages
# cost more than the products. (With a higher MALLOC_MMAP_THRESHOLD_ both take as long.)
SCORED_AT_ONCE = 500


class Scores(NamedTuple):
    """The scores of an evaluation.

    Attributes:
      loss: mean over the examples.
      correct: number of correct answers, None without the metric "accuracy" of truth values.
      examples: their number.
      metrics: the mean of each metric by name.
    """

    loss: float
    correct: int | None
    examples: int
    metrics: Mapping[str, float]

    @property
    def accuracy(self) -> float:
        """Share of correct answers, NaN if answers are not right or wrong."""
        if self.correct is None:
            return self.metrics.get("accuracy", math.nan)
        return self.correct / self.examples


class Evaluator:
    """The programs of a `convjax.Trainer` for evaluation and prediction.

    Args:
      step: the training step.
      placement: where the training takes place.
      checks: of the trainer.
    """

    def __init__(self, step: TrainStep, placement: Placement, checks: DataChecks):
        self._step, self._placement, self._checks = step, placement, checks
        self._run = placement.program(self.sums, (REPLICATED, REPLICATED, SPLIT_SECOND))
        self._pick = placement.program(picked, (REPLICATED, REPLICATED))
        self._run_piece = self._run
        if placement.mesh is not None:
            self._run_piece = placement.program(self.sums, (REPLICATED, SPLIT_FIRST, SPLIT_SECOND))
        self._run_logits = TimedJit(step.logits)

    @property
    def programs(self) -> set[TimedJit]:
        """The distinct programs."""
        return {self._run, self._pick, self._run_piece, self._run_logits}

    def predict(
        self, state: TrainState, images: Num[Array | np.ndarray, "N ..."]
    ) -> Float[Array, "N ..."]:
        """As `convjax.Trainer.predict`."""
        images = np.asarray(images)
        self._checks.check_inputs(state, images)
        return self._run_logits(gather(state), images)

    def evaluate(
        self,
        state: TrainState,
        data: Images | Stream,
        batch_size: int,
        agree: Callable[..., None],
    ) -> Scores:
        """As `convjax.Trainer.evaluate`, whose method `agree` it takes."""
        batch_size = check_whole("batch_size", batch_size, 1)
        self._checks.check(state, data, training=False)
        examples = len(data.labels)
        order = scoring_order(examples, batch_size, self._placement.parts)
        agree("Trainer.evaluate", state=state, data=data, batch_size=batch_size)
        state = self._placement.put(state)
        if isinstance(data, Stream):
            total, sums = total_of(self._score_stream(state, data, order))
        else:
            batches = self._score_images(state, self._placement.put(data), order)
            total, sums = total_of(jax.device_get(list(batches)))
        hits = sums.get("accuracy")
        means = {name: float(of) / examples for name, of in sums.items()}
        return Scores(
            float(total) / examples,
            int(hits) if isinstance(hits, np.integer) else None,
            examples,
            means,
        )

    def _score_images(
        self, state: TrainState, data: Images, order: Int32[np.ndarray, "T B"]
    ) -> Iterator[Any]:
        """Yields the sums of loss and metrics of each batch, on the device.

        A batch is picked first: the program that scores is the same for all splits.
        """
        for rows, counted in scoring_batches(order):
            counted, rows = self._placement.put_order(counted, rows)
            yield self._run(state, self._pick(data, rows), counted)

    def _score_stream(
        self, state: TrainState, data: Stream, order: Int32[np.ndarray, "T B"]
    ) -> Iterator[Any]:
        """Yields the sums of loss and metrics of the batches of each chunk of a stream."""
        length = min(len(order), steps_at_once(data, order.shape[1]))
        with stream_chunks(data, order, length, self._placement.mesh) as chunks:
            running: Any = None
            for images, labels, rows in chunks:
                given = self._placement.put_order(rows)
                found = self._run_piece(state, Images(images, labels), *given)
                # Fetching waits for a chunk: fetch only after the next has been dispatched.
                if running is not None:
                    yield jax.device_get(running)
                running = found
        yield jax.device_get(running)

    def sums(
        self, state: TrainState, data: Images, order: Int[Array, "T B"]
    ) -> tuple[Float[Array, " T"], dict[str, Num[Array, " T"]]]:
        """Returns the sums of loss and of each metric over the indices of each row but −1.

        Truth values are counted in int32. A pure function of the data on one device, whose results
        are summed over all devices.
        """

        def of_batch(rows: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            counted = rows >= 0
            losses, metrics = self._step.scores(state, data.images[rows], data.labels[rows])
            return jnp.where(counted, losses, 0).sum(), {
                name: (of & counted).sum(dtype=jnp.int32)
                if of.dtype == jnp.bool_
                else jnp.where(counted, at_least_float32(of), 0).sum()
                for name, of in metrics.items()
            }

        sums = lax.map(of_batch, order)
        return sums if self._placement.mesh is None else lax.psum(sums, AXIS)


def scoring_batches(
    order: Int32[np.ndarray, "T B"],
) -> Iterator[tuple[Int32[np.ndarray, " B"], Int32[np.ndarray, "1 B"]]]:
    """Yields, for each batch, its indices in the data and, once it is `picked`, in itself.

    The latter are −1 for no example.
    """
    own = np.where(order >= 0, np.arange(order.shape[1], dtype=np.int32), np.int32(-1))
    yield from zip(order, own[:, None], strict=True)


def picked(data: Images, rows: Int[Array, " B"]) -> Images:
    """Returns the examples with these indices."""
    return Images(data.images[rows], data.labels[rows])


def total_of(batches: Iterable[Any]) -> Any:
    """Returns the totals of sums (…, T) over batches, added on the host in float64 or int64."""

    def add(*parts: Num[np.ndarray, "... T"]) -> Any:
        kind = np.int64 if parts[0].dtype.kind == "i" else np.float64
        return np.sum([part.sum(-1, dtype=kind) for part in parts], 0)

    return jax.tree.map(add, *batches)
