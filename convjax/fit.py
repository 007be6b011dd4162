"""A whole training: epochs, evaluations, checkpoints, and going on where it was stopped.

Steps are taken in pieces that the plan alone decides, whatever interrupts the training: so one that
was stopped and goes on takes the same steps in the same programs, and ends with the same bits.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax import distributed
from convjax.checkpoints import Checkpoints, filled, named
from convjax.growing import ROWS, Growing
from convjax.nonfinite import NonFiniteError, first_non_finite
from convjax.record import Record
from convjax.runs import RunFolder
from convjax.step import State
from convjax.train import Images, Trainer

# Steps of a piece, at whose end a training can be stopped: long enough that asking costs nothing.
PIECE = 512

# The folder is brought up to date after an evaluation at most so often: writing, with all bytes on
# the disk before the old file goes, takes longer than a short epoch.
WRITE_SECONDS = 1.0

# fastai's average of the training loss, https://docs.fast.ai/learner.html#AvgSmoothLoss
SMOOTHING = 0.98

Order = npt.NDArray[np.integer[Any]]


class Stopped(Exception):  # no error: somebody asked for it
    """A training was asked to stop, and has saved a checkpoint where it has those.

    Attributes:
      step: how many steps it has taken.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped after {step} steps.")
        self.step = step


class Piece(NamedTuple):
    """Some steps of an epoch: the first of them, their batches (steps, B), and whether an
    evaluation follows."""

    epoch: int
    first: int
    order: Order
    evaluated: bool


@dataclass(frozen=True)
class Plan:
    """Which images each step takes, and at which rate.

    Attributes:
      epochs: each of equally many steps.
      order: from the number of an epoch to its batches, (steps, B) indices; the same at each call.
      table: "learning_rate" and "momentum" of each step, (T,).
      evaluations: per epoch, which they cut into parts of nearly the same length.

    Raises:
      ValueError: if there is no epoch or evaluation, or the steps of the table are not a multiple
        of the epochs.
    """

    epochs: int
    order: Callable[[int], Order]
    table: Mapping[str, npt.ArrayLike]
    evaluations: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "evaluations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.steps % self.epochs:
            raise ValueError(
                f"table must have equally many steps for each of {self.epochs} epochs, got "
                f"{self.steps}."
            )

    @property
    def steps(self) -> int:
        """Steps of the whole training, T."""
        return len(np.asarray(self.table["learning_rate"]))

    def rates(self, piece: Piece) -> dict[str, npt.NDArray[Any]]:
        """Returns the table of a piece's steps."""
        inside = slice(piece.first, piece.first + len(piece.order))
        return {name: np.asarray(column)[inside] for name, column in self.table.items()}

    def pieces(self, taken: int, length: int) -> Iterator[Piece]:
        """Yields what is left after so many steps, in pieces of at most `length` steps.

        Raises:
          ValueError: if an epoch has another number of steps than the table, or the steps taken do
            not end with a piece.
        """
        per_epoch = self.steps // self.epochs
        for epoch in range(taken // per_epoch, self.epochs):
            order = np.asarray(self.order(epoch))
            if len(order) != per_epoch:
                raise ValueError(
                    f"order must have {per_epoch} batches for each epoch, as the table has, got "
                    f"{len(order)} for epoch {epoch}."
                )
            first = epoch * per_epoch
            for part in np.array_split(order, min(self.evaluations, per_epoch)):
                for start in range(0, len(part), length):
                    piece = part[start : start + length]
                    if first >= taken:
                        yield Piece(epoch, first, piece, start + length >= len(part))
                    elif first + len(piece) > taken:
                        raise ValueError(f"taken must end with a piece, got {taken} steps.")
                    first += len(piece)


@dataclass
class Progress:
    """How far a training is, as plain data.

    Attributes:
      steps: taken so far.
      average: of the loss as fastai smooths it, before its start is corrected for.
      seconds, compile_seconds: spent since the last evaluation; compiling is not in the seconds.
      metrics: of each evaluation so far, see `Fitted`.
    """

    steps: int = 0
    average: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)

    def take(self, losses: npt.NDArray[Any]) -> None:
        """Counts steps with these losses."""
        for loss in losses.astype(np.float64).tolist():
            self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.steps += len(losses)

    def score(self, epoch: int, loss: float, accuracy: float) -> dict[str, Any]:
        """Adds an evaluation on the test images and returns its metrics."""
        row = {
            "epoch": epoch,
            "step": self.steps,
            # fastai's average goes on over the epochs; only the validation starts anew.
            "train_loss": self.average / (1 - SMOOTHING**self.steps),
            "valid_loss": float(loss),
            "accuracy": float(accuracy),
            "seconds": round(self.seconds, 3),
            "compile_seconds": round(self.compile_seconds, 3),
        }
        self.seconds = self.compile_seconds = 0.0
        self.metrics.append(row)
        return row

    @property
    def best(self) -> float:
        """The highest accuracy so far."""
        return max((row["accuracy"] for row in self.metrics), default=-math.inf)


class Fitted(NamedTuple):
    """What a training comes to.

    Attributes:
      state: after the last step.
      record: of all steps, in a bounded number of rows.
      metrics: per evaluation, of which an epoch has one unless the plan says otherwise: epoch,
        step, train_loss (smoothed), valid_loss, accuracy, seconds (of training and evaluation) and
        compile_seconds, which are not in them; the last has train_accuracy, too.
    """

    state: State
    record: Record
    metrics: list[dict[str, Any]]


class Listener:
    """Hears of a training while it goes on; this one keeps quiet."""

    def restored(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """The training goes on after so many steps, with the evaluations until there."""

    def steps(self, done: int) -> None:
        """`done` more steps have been recorded."""

    def recorded(self, record: Record, first: int) -> None:
        """The steps from `first` on have been recorded, a row for each."""

    def scored(self, metrics: dict[str, Any]) -> None:
        """An evaluation."""


class Keeping(NamedTuple):
    """Where a training is kept, so that it can go on.

    Attributes:
      folder: takes metrics and record after each evaluation.
      checkpoints: takes the newest state; with none there is no going on.
      seconds: between checkpoints. One is written besides at the end, when the training is stopped,
        and where an evaluation is the best so far.
    """

    folder: RunFolder
    checkpoints: Checkpoints | None = None
    seconds: float = 30.0


def fit(
    trainer: Trainer,
    model: nnx.Module,
    train: Images,
    test: Images,
    plan: Plan,
    *,
    rows: int = ROWS,
    keeping: Keeping | None = None,
    stop: Callable[[], object] = lambda: False,
    stop_at_non_finite: bool = True,
    listener: Listener | None = None,
) -> Fitted:
    """Trains a model, scores it, and keeps what it needs to go on.

    Where `keeping` has a checkpoint, the training goes on from the newest: it ends with the same
    parameters, record and metrics (but for their seconds), bit for bit, as if it had never been
    interrupted, on the same devices with the same versions.

    Args:
      trainer: made for models like this.
      model: has the initial parameters.
      train, test: on the device.
      rows: of the record, see `Trainer.run`.
      stop: asked after each piece of some hundred steps; where it says so, a checkpoint is saved.
      stop_at_non_finite: whether a loss that is not finite ends the training. Neither the state
        nor a checkpoint is written then, but the record.
      listener: hears of the progress.

    Raises:
      Stopped: if `stop` said so before the end.
      NonFiniteError: if a loss is not finite.
      CheckpointError: if the newest checkpoint is damaged or of another training.
      ValueError: as `Trainer.run` and `Plan.pieces`.
      OSError: if something cannot be written.
    """
    listener = listener or Listener()
    state = trainer.start(model)
    growing, progress = Growing(rows), Progress()
    keeper = _Keeper(keeping, growing, progress)
    state = keeper.restore(state)
    if progress.steps:
        listener.restored(progress.steps, progress.metrics)
    every = 1 if trainer.watch is None else trainer.watch.every
    for piece in plan.pieces(progress.steps, -(-PIECE // every) * every):
        began, compiled = time.perf_counter(), trainer.compile_seconds
        state, record = trainer.run(
            state,
            train,
            piece.order,
            plan.rates(piece),
            rows=len(piece.order),
            on_steps=listener.steps,
        )
        growing.add(record)
        progress.take(record.loss)
        listener.recorded(record, piece.first)
        found = first_non_finite(record, piece.first) if stop_at_non_finite else None
        if found is not None:
            keeper.write()
            raise NonFiniteError(found)
        scores = trainer.evaluate(state, test) if piece.evaluated else None
        spent = trainer.compile_seconds - compiled
        progress.compile_seconds += spent
        progress.seconds += time.perf_counter() - began - spent
        ended = progress.steps == plan.steps
        if scores is not None:
            better = scores.accuracy > progress.best
            metrics = progress.score(piece.epoch, scores.loss, scores.accuracy)
            if ended:
                metrics["train_accuracy"] = trainer.evaluate(state, train).accuracy
            keeper.write(now=ended)
            listener.scored(metrics)
        stopped = bool(stop()) and not ended
        if ended or stopped or keeper.due() or (scores is not None and better):
            keeper.save(state, None if scores is None else scores.accuracy)
        if stopped:
            keeper.write()
            keeper.wait()
            raise Stopped(progress.steps)
    keeper.wait()
    return Fitted(state, growing.record(), progress.metrics)


class _Keeper:
    """Writes a training's folder and checkpoints, where there are any."""

    def __init__(self, keeping: Keeping | None, growing: Growing, progress: Progress):
        self._folder = keeping and keeping.folder
        self._checkpoints = keeping and keeping.checkpoints
        self._seconds = keeping.seconds if keeping else math.inf
        self._growing, self._progress = growing, progress
        self._last, self._written = time.monotonic(), -math.inf

    def restore(self, state: State) -> State:
        """Returns the state of the newest checkpoint, with the record and progress put back."""
        saved = None
        if self._checkpoints is not None:
            self._checkpoints.clean()
            saved = self._checkpoints.restore(state)
        # Process 0 alone reads the folder, which the others need not even see.
        progress = _from_primary(saved and saved.progress)
        if progress is None:
            return state
        for name, value in progress.items():
            setattr(self._progress, name, value)
        if saved is not None:
            self._growing.add(saved.record)
            self.write()  # the folder may have been ahead of the checkpoint
        arrays = distributed.broadcast(named(saved.state if saved else state))
        return jax.tree.map(_like, state, filled(state, arrays, "of process 0"))

    def write(self, *, now: bool = True) -> None:
        """Brings the folder up to date, so that it can be read while the training goes on.

        Args:
          now: False leaves it as it is where it was written a moment ago.
        """
        if self._folder is None or not (now or time.monotonic() - self._written > WRITE_SECONDS):
            return
        self._folder.write_metrics(self._progress.metrics)
        self._folder.write_record(self._growing.record())
        self._written = time.monotonic()

    def due(self) -> bool:
        """Tells whether it is time for a checkpoint."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: State, score: float | None) -> None:
        """Begins to write a checkpoint."""
        if self._checkpoints is not None:
            steps, progress = self._progress.steps, asdict(self._progress)
            self._checkpoints.save(steps, state, self._growing.whole(), progress, score=score)
            self._last = time.monotonic()

    def wait(self) -> None:
        """Returns when all is on the disk."""
        if self._checkpoints is not None:
            self._checkpoints.wait()


def _from_primary(value: Any) -> Any:
    """Returns process 0's plain data in every process."""
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(distributed.broadcast(np.int64(len(data))))
    if not distributed.is_primary():
        data = np.zeros(length, np.uint8)
    return json.loads(distributed.broadcast(data).tobytes())


def _like(old: jax.Array, new: Any) -> jax.Array:
    """Puts an array where another lies: no program is compiled for a place of its own."""
    if old.is_fully_addressable:
        return jax.device_put(new, old.sharding)
    return jax.make_array_from_callback(new.shape, old.sharding, lambda index: new[index])
