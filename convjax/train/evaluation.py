"""Evaluation: the scores of every example, with the running statistics, and logits of images."""

import math
from collections.abc import Callable, Mapping
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
        self._run_piece = self._run
        if placement.mesh is not None:
            self._run_piece = placement.program(self.sums, (REPLICATED, SPLIT_FIRST, SPLIT_SECOND))
        self._run_logits = TimedJit(step.logits)

    @property
    def programs(self) -> set[TimedJit]:
        """The distinct programs."""
        return {self._run, self._run_piece, self._run_logits}

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
            total, sums = self._score_stream(state, data, order)
        else:
            data = self._placement.put(data)
            total, sums = self._run(state, data, *self._placement.put_order(order))
        hits = jax.device_get(sums.get("accuracy"))
        counted = np.asarray(hits).dtype.kind == "i"
        means = {name: float(of) / examples for name, of in sums.items()}
        return Scores(
            float(total) / examples,
            int(hits) if counted else None,
            examples,
            means,
        )

    def _score_stream(
        self, state: TrainState, data: Stream, order: Int32[np.ndarray, "T B"]
    ) -> tuple[float, dict[str, Any]]:
        """Returns the sums of loss and metrics over all examples of a stream."""
        length = min(len(order), steps_at_once(data, order.shape[1]))
        total, sums = 0.0, dict[str, Any]()

        def add(found: Any) -> None:
            nonlocal total
            total += float(found[0])
            for name, of in jax.device_get(found[1]).items():
                sums[name] = sums.get(name, 0) + of.astype(
                    np.int64 if of.dtype.kind == "i" else float
                )

        with stream_chunks(data, order, length, self._placement.mesh) as chunks:
            running: Any = None
            for images, labels, rows in chunks:
                given = self._placement.put_order(rows)
                found = self._run_piece(state, Images(images, labels), *given)
                # Fetching waits for a chunk: fetch only after the next has been dispatched.
                if running is not None:
                    add(running)
                running = found
        add(running)
        return total, sums

    def sums(
        self, state: TrainState, data: Images, order: Int[Array, "T B"]
    ) -> tuple[Float[Array, ""], dict[str, Num[Array, ""]]]:
        """Returns the sums of loss and of each metric over all indices in order but −1.

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

        def body(sums: Any, rows: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, of_batch(rows)), None

        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_batch, order[0])
        )
        sums = lax.scan(body, zeros, order)[0]
        return sums if self._placement.mesh is None else lax.psum(sums, AXIS)
