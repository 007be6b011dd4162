"""A whole training: epochs, evaluations, checkpoints, and going on where it was stopped.

Steps are taken in pieces that the plan alone decides, whatever interrupts the training: so one that
was stopped and goes on takes the same steps in the same programs, and ends with the same bits.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from convjax._checks import check_type, check_whole, describe_value
from convjax.data.stream import Stream
from convjax.stats.nonfinite import NonFiniteError, first_non_finite
from convjax.stats.record import Record
from convjax.stats.record_builder import MAX_ROWS, RecordBuilder
from convjax.train.device_data import Images, check_data
from convjax.train.persistence import Progress, Store, StoreWriter
from convjax.train.plan import Plan
from convjax.train.step import TrainState
from convjax.train.trainer import Trainer


class TrainingStopped(Exception):  # no error: somebody asked for it
    """A training was asked to stop, and has saved a checkpoint where it has those.

    Attributes:
      step: how many steps it has taken.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped after {step} steps.")
        self.step = step


class FitResult(NamedTuple):
    """What a training comes to.

    Attributes:
      state: after the last step.
      record: of all steps, in a bounded number of rows.
      metrics: per evaluation, of which an epoch has one unless the plan says otherwise: epoch,
        step, train_loss (smoothed), valid_loss, accuracy, seconds (of training and evaluation) and
        compile_seconds, which are not in them; the last has train_accuracy, too.
    """

    state: TrainState
    record: Record
    metrics: list[dict[str, Any]]


class Callback:
    """Hears of a training while it goes on; this one keeps quiet."""

    def restored(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """The training goes on after so many steps, with the evaluations until there; with none
        where there is no checkpoint yet."""

    def steps(self, done: int) -> None:
        """`done` more steps have been recorded."""

    def recorded(self, record: Record, first: int) -> None:
        """The steps from `first` on have been recorded, a row for each."""

    def scored(self, metrics: dict[str, Any]) -> None:
        """An evaluation."""


def fit(
    trainer: Trainer,
    model: nnx.Module,
    train: Images | Stream,
    test: Images | Stream,
    plan: Plan,
    *,
    rows: int = MAX_ROWS,
    keeping: Store | None = None,
    stop: Callable[[], object] = lambda: False,
    stop_at_non_finite: bool = True,
    listener: Callback | None = None,
) -> FitResult:
    """Trains a model, scores it, and keeps what it needs to go on.

    Where `keeping` has a checkpoint, the training goes on from the newest: it ends with the same
    parameters, record and metrics (but for their seconds), bit for bit, as if it had never been
    interrupted, on the same devices with the same versions.

    Args:
      trainer: made for models like this.
      model: has the initial parameters.
      train, test: on the device, or left in their files.
      plan: which images each step takes, at which rate, and when it is scored.
      rows: of the record, see `Trainer.run`.
      keeping: where the training is kept; None keeps nothing. Of several processes
        (`convjax.distributed`) process 0 alone is given it.
      stop: asked after each of the plan's pieces; where it says so, a checkpoint is saved. Several
        processes must be told the same: `lambda: distributed.any_process(…)`.
      stop_at_non_finite: whether a loss that is not finite ends the training. Neither the state
        nor a checkpoint is written then, but the record.
      listener: hears of the progress.

    Raises:
      Stopped: if `stop` said so before the end.
      NonFiniteError: if a loss is not finite.
      CheckpointError: if the newest checkpoint is damaged, or of another training or plan.
      ValueError, TypeError: as `Trainer.run` and `Plan.pieces`.
      OSError: if something cannot be written.
    """
    check_type("trainer", trainer, Trainer, "convjax.Trainer makes one.")
    check_type("plan", plan, Plan, "convjax.Plan makes one.")
    for name, images in (("train", train), ("test", test)):
        check_data(images, name)
    parts = ("folder", "checkpoints", "seconds")
    if keeping is not None and not all(hasattr(keeping, name) for name in parts):
        raise TypeError(
            f"keeping must be Keeping, got {describe_value(keeping)}. "
            "convjax.Keeping(folder, checkpoints) makes one."
        )
    check_whole("rows", rows, 1)
    listener = listener or Callback()
    state = trainer.start(model)
    for images in (train, test):
        trainer.check_labels(state, images)
    growing, progress = RecordBuilder(rows), Progress()
    keeper = StoreWriter(keeping, plan, growing, progress)
    state = keeper.restore(state)
    if keeping is not None and keeping.folder.resumed:
        listener.restored(progress.steps, progress.metrics)
    every = 1 if trainer.watch is None else trainer.watch.every
    for piece in plan.pieces(progress.steps, every):
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
        stopped = bool(stop()) and not ended
        if ended or stopped or keeper.due() or (scores is not None and better):
            keeper.save(state, None if scores is None else scores.accuracy)
        if scores is not None:
            listener.scored(metrics)  # once all is kept: where it writes may be gone
        if stopped:
            keeper.write()
            keeper.wait()
            raise TrainingStopped(progress.steps)
    keeper.wait()
    return FitResult(state, growing.record(), progress.metrics)
