"""Evaluation: the scores of every example, with the running statistics, and logits of images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, UInt8

from convjax._checks import check_whole
from convjax._precision import at_least_float32
from convjax.data import Stream
from convjax.parallel.mesh import AXIS, REPLICATED, SPLIT_FIRST, SPLIT_SECOND, gather
from convjax.parallel.placement import Placement
from convjax.parallel.timed_jit import TimedJit
from convjax.train._arguments import check_alive, check_labels
from convjax.train.device_data import Images, check_data, steps_at_once, stream_chunks
from convjax.train.scan_loop import scoring_order
from convjax.train.step import TrainState, TrainStep


class Scores(NamedTuple):
    """The scores of an evaluation: mean loss, number of correct answers and of examples."""

    loss: float
    correct: int
    examples: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.correct / self.examples


class Evaluator:
    """The programs of a `convjax.Trainer` for evaluation and prediction.

    Args:
      step: the training step.
      placement: where the training takes place.
      checks_labels: whether each label must have a logit; labels may mean something else to a
        custom loss.
    """

    def __init__(self, step: TrainStep, placement: Placement, *, checks_labels: bool):
        self._step, self._placement, self._checks_labels = step, placement, checks_labels
        self._known_classes: dict[tuple[int, ...], int] = {}
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
        self, state: TrainState, images: UInt8[Array | np.ndarray, "N H W C"]
    ) -> Float[Array, "N K"]:
        """As `convjax.Trainer.predict`."""
        check_alive(state)
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"images must be uint8 of the shape (N, H, W, C), got {images.dtype} of the shape "
                f"{images.shape}. Pass them as loaded: they are normalised here."
            )
        return self._run_logits(gather(state), images)

    def evaluate(self, state: TrainState, data: Images | Stream, batch_size: int) -> Scores:
        """As `convjax.Trainer.evaluate`."""
        check_alive(state)
        check_data(data)
        examples = len(data.labels)
        batch_size = check_whole("batch_size", batch_size, 1)
        order = scoring_order(examples, batch_size, self._placement.parts)
        self.check_labels(state, data)
        state = self._placement.put(state)
        if isinstance(data, Stream):
            total, correct = self._score_stream(state, data, order)
        else:
            data = self._placement.put(data)
            total, correct = self._run(state, data, *self._placement.put_order(order))
        return Scores(float(total) / examples, int(correct), examples)

    def _score_stream(
        self, state: TrainState, data: Stream, order: Int32[np.ndarray, "T B"]
    ) -> tuple[float, int]:
        """Returns the sums of loss and correct answers over all examples of a stream."""
        length = min(len(order), steps_at_once(data, order.shape[1]))
        total, correct = 0.0, 0
        with stream_chunks(data, order, length, self._placement.mesh) as chunks:
            running: tuple[Any, Any] = total, correct
            for images, labels, rows in chunks:
                given = self._placement.put_order(rows)
                found = self._run_piece(state, Images(images, labels), *given)
                # Fetching waits for a chunk: fetch only after the next has been dispatched.
                total, correct = total + float(running[0]), correct + int(running[1])
                running = found
        return total + float(running[0]), correct + int(running[1])

    def check_labels(self, state: TrainState, data: Images | Stream) -> None:
        """As `convjax.Trainer.check_labels`."""
        if not self._checks_labels:
            return
        image = data.images.shape[1:]
        if image not in self._known_classes:
            images = jax.ShapeDtypeStruct((1, *image), data.images.dtype)
            logits = jax.eval_shape(self._step.logits, state, images)
            self._known_classes[image] = logits.shape[-1]
        labels: Any = data.labels
        check_labels(labels, self._known_classes[image])

    def sums(
        self, state: TrainState, data: Images, order: Int[Array, "T B"]
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Returns the sums of loss and correct answers over all indices in order but −1.

        A pure function of the data on one device, whose results are summed over all devices.
        """

        def body(sums: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[Any, None]:
            counted = rows >= 0
            losses, hits = self._step.scores(state, data.images[rows], data.labels[rows])
            losses = jnp.where(counted, losses, 0)
            return (sums[0] + losses.sum(), sums[1] + (hits & counted).sum(dtype=jnp.int32)), None

        zero = at_least_float32(jnp.zeros((), jax.tree.leaves(state.params)[0].dtype))
        sums = lax.scan(body, (zero, jnp.int32(0)), order)[0]
        return sums if self._placement.mesh is None else lax.psum(sums, AXIS)
