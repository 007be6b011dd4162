"""Evaluation: every example once, with the running statistics, and the logits of images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from convjax._checks import check_whole
from convjax.data import Stream
from convjax.parallel.mesh import AXIS, REPLICATED, SPLIT_FIRST, SPLIT_SECOND, gather
from convjax.parallel.placement import Placement
from convjax.parallel.timed_jit import TimedJit
from convjax.train._arguments import check_alive, check_labels
from convjax.train.device_data import Images, check_data, steps_at_once, stream_chunks
from convjax.train.scan_loop import scoring_order
from convjax.train.step import TrainState, TrainStep


class Scores(NamedTuple):
    """What an evaluation tells: mean loss, correct answers, and out of how many."""

    loss: float
    correct: int
    examples: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.correct / self.examples


class Evaluator:
    """The programs with which a `convjax.Trainer` evaluates and predicts.

    Args:
      step: of the training.
      placement: where it takes place.
      checks_labels: whether each label must have a logit; a loss of the user's own may mean
        something else by them.
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
        """Its programs, each once."""
        return {self._run, self._run_piece, self._run_logits}

    def predict(self, state: TrainState, images: npt.ArrayLike) -> jax.Array:
        """As `convjax.Trainer.predict`."""
        check_alive(state)
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"images must be uint8 of the shape (N, H, W, C), got {images.dtype} of the shape "
                f"{images.shape}. They are normalised here."
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
        self, state: TrainState, data: Stream, order: npt.NDArray[np.int32]
    ) -> tuple[float, int]:
        """Returns the sums of loss and correct answers over all examples of a stream."""
        length = min(len(order), steps_at_once(data, order.shape[1]))
        total, correct = 0.0, 0
        with stream_chunks(data, order, length, self._placement.mesh) as chunks:
            running: tuple[Any, Any] = total, correct
            for images, labels, rows in chunks:
                given = self._placement.put_order(rows)
                found = self._run_piece(state, Images(images, labels), *given)
                # Fetching waits for a chunk: do so only once the next is on its way.
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
        self, state: TrainState, data: Images, order: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Sums loss and correct answers over the rows of order, in which −1 counts for nothing.

        A pure function of what lies on one device, summed over all.
        """

        def body(sums: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[Any, None]:
            counted = rows >= 0
            losses, hits = self._step.scores(state, data.images[rows], data.labels[rows])
            losses = jnp.where(counted, losses, 0)
            return (sums[0] + losses.sum(), sums[1] + (hits & counted).sum(dtype=jnp.int32)), None

        zero = jnp.zeros((), jax.tree.leaves(state.params)[0].dtype)
        sums = lax.scan(body, (zero, jnp.int32(0)), order)[0]
        return sums if self._placement.mesh is None else lax.psum(sums, AXIS)
