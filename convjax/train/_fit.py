"""A whole training: epochs, evaluations, checkpoints, and resuming from them.

The plan alone decides in which pieces the steps are taken, whatever interrupts the training. A
resumed training therefore takes the same steps in the same programs and ends with the same bits.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from convjax._checks import check_flags, check_type, check_whole, describe_value
from convjax.data.stream import Stream
from convjax.stats.nonfinite import NonFiniteError, first_non_finite
from convjax.stats.record import Record
from convjax.stats.record_builder import MAX_ROWS, RecordBuilder
from convjax.train.device_data import Images
from convjax.train.metric_writer import AnyWriter, MetricOutput
from convjax.train.persistence import Store, StoreWriter
from convjax.train.plan import Plan
from convjax.train.progress import Progress
from convjax.train.step import TrainState
from convjax.train.trainer import Trainer


class TrainingStopped(Exception):  # not an error: the stop was requested
    """Raised after a training was asked to stop and, if it keeps checkpoints, has saved one.

    Attributes:
      step: number of steps taken.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped after {step} steps.")
        self.step = step


class FitResult(NamedTuple):
    """The result of a training.

    Attributes:
      state: after the last step.
      record: of all steps, in a bounded number of rows.
      metrics: a row for each evaluation; an epoch has one unless the plan says otherwise. Its keys
        are epoch, step, train_loss (smoothed), valid_loss, accuracy or the trainer's metrics,
        seconds (of training and evaluation, without compiling) and compile_seconds; the last row
        has train_accuracy, too, where there is an accuracy.
    """

    state: TrainState
    record: Record
    metrics: list[dict[str, Any]]

    def __repr__(self) -> str:
        count, last = len(self.metrics), self.metrics[-1] if self.metrics else {}
        accuracy = f"accuracy {last['accuracy']:.4g}, " if "accuracy" in last else ""
        return (
            f"FitResult({self.record!r}, {count:,} evaluation{'s' * (count != 1)}, {accuracy}"
            f"{self.state!r})"
        )


class Callback:
    """Base class for callbacks of a training; every method does nothing."""

    def on_restore(self, steps: int, metrics: list[dict[str, Any]]) -> None:
        """The training resumes in its folder.

        Args:
          steps: number of steps already taken; 0 if there was no checkpoint yet.
          metrics: of the evaluations so far.
        """

    def on_steps(self, done: int) -> None:
        """`done` more steps have been recorded."""

    def on_record(self, record: Record, first: int) -> None:
        """A piece of the training has been recorded, in one row per step from step `first` on."""

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        """An evaluation has been made, and saved where the training is kept."""


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
    callback: Callback | None = None,
    writer: AnyWriter = None,
) -> FitResult:
    """Trains a model and scores it, and saves what is needed to resume.

    Where `keeping` has a checkpoint, the training resumes from the newest. On the same devices and
    with the same versions it ends with the same parameters, record and metrics (except seconds),
    bit for bit, as an uninterrupted training.

    Args:
      trainer: made for models of the same structure.
      model: gives the initial parameters.
      train, test: the splits, on the device or left in their files.
      plan: the batches and rates of every step, and the evaluations.
      rows: bound of the record's rows, see `Trainer.run`.
      keeping: where the training is saved; None saves nothing. Of several processes
        (`convjax.distributed`) only process 0 passes one.
      stop: called after each of the plan's pieces; if it returns a true value, a checkpoint is
        saved and the training stops. It must return the same in all processes:
        `lambda: distributed.any_process(…)`.
      stop_at_non_finite: whether a loss that is not finite ends the training. The record is then
        written, but no checkpoint.
      callback: is notified of the progress.
      writer: gets the scalars of every step, and of each evaluation at the number of steps before
        it, as they arrive, see `convjax.train.MetricWriter`. A resumed training goes on from its
        checkpoint, with the evaluation at it once more. Of several processes only process 0 passes
        a writer.

    Raises:
      TrainingStopped: if `stop` asked for it before the end.
      NonFiniteError: if a loss is not finite.
      CheckpointError: if the newest checkpoint is damaged, or of another training or plan.
      ValueError, TypeError: as `Trainer.run` and `Plan.pieces`.
      OSError: if a file cannot be written.
      RunError: if the folder of `keeping` is renamed or removed during the training.

    Examples:
      >>> import numpy as np
      >>> import convjax
      >>> from flax import nnx
      >>> model = convjax.LinearNet((16, 3), rngs=nnx.Rngs(0))
      >>> trainer = convjax.Trainer(model, convjax.adam(), watch=None)
      >>> random = np.random.default_rng(0)
      >>> pixels = random.integers(0, 256, (20, 4, 4, 1), np.uint8)
      >>> labels = np.arange(20, dtype=np.int32) % 3
      >>> images = convjax.Images.put(convjax.data.Split(pixels, labels))
      >>> def order(epoch):
      ...     return convjax.data.epoch_order(20, 5, seed=0, epoch=epoch)
      >>> plan = convjax.Plan(2, order, convjax.one_cycle(8, 0.01).table(8))
      >>> result = convjax.fit(trainer, model, images, images, plan)
      >>> result.record
      Record(8 steps, 0 layers)
      >>> [(row["epoch"], row["step"]) for row in result.metrics]
      [(0, 4), (1, 8)]
    """
    check_type("trainer", trainer, Trainer, "convjax.Trainer makes one.")
    check_type("plan", plan, Plan, "convjax.Plan makes one.")
    if keeping is not None and not isinstance(keeping, Store):
        raise TypeError(
            f"keeping must be Keeping, got {describe_value(keeping)}. "
            "convjax.Keeping(folder, checkpoints) makes one."
        )
    check_whole("rows", rows, 1)
    check_flags(stop_at_non_finite=stop_at_non_finite)
    callback, output = Callback() if callback is None else callback, MetricOutput.of(writer)
    check_type("callback", callback, Callback, "Derive its class from convjax.train.Callback.")
    of_plan = {f"plan.{name}": value for name, value in plan.config.items()}
    trainer.agree("fit", **of_plan, stop_at_non_finite=stop_at_non_finite)
    state = trainer.start(model)
    for name, images in (("train", train), ("test", test)):
        trainer.check(state, images, name, training=images is train)
    record, progress = RecordBuilder(rows), Progress()
    store = StoreWriter(keeping, plan, record, progress)
    state = store.restore(state)

    def on_steps(done: int) -> None:
        store.check()
        callback.on_steps(done)

    if keeping is not None and keeping.resumed:
        callback.on_restore(progress.steps, progress.metrics)
        for row in progress.metrics:
            if row["step"] == progress.steps:  # the checkpoint is saved before it is passed on
                output.evaluation(row)
    every = 1 if trainer.watch is None else trainer.watch.every
    for piece in plan.pieces(progress.steps, every):
        began, compiled = time.perf_counter(), trainer.compile_seconds
        state, of_piece = trainer.run(
            state,
            train,
            piece.order,
            plan.rates(piece),
            rows=len(piece.order),
            on_steps=on_steps,
            seed=plan.seed,
            first_step=piece.first,
            writer=output,
        )
        record.add(of_piece)
        progress.take(of_piece.loss)
        callback.on_record(of_piece, piece.first)
        found = first_non_finite(of_piece, piece.first) if stop_at_non_finite else None
        if found is not None:
            store.write()
            raise NonFiniteError(found)
        scores = trainer.evaluate(state, test) if piece.evaluated else None
        progress.spend(time.perf_counter() - began, trainer.compile_seconds - compiled)
        ended = progress.steps == plan.steps
        if scores is not None:
            better = progress.is_best(scores.loss, scores.metrics)
            metrics = progress.score(piece.epoch, scores.loss, scores.metrics)
            if ended and "accuracy" in metrics:
                metrics["train_accuracy"] = trainer.evaluate(state, train).accuracy
            store.write(now=ended)
        stopped = bool(stop()) and not ended
        if ended or stopped or store.due() or (scores is not None and better):
            quality = None if scores is None else scores.metrics.get("accuracy", -scores.loss)
            store.save(state, quality)
        if scores is not None:
            output.evaluation(metrics)
            callback.on_evaluation(metrics)  # after saving: a callback may fail
        if stopped:
            store.write()
            store.wait()
            raise TrainingStopped(progress.steps)
    store.wait()
    return FitResult(state, record.record(), progress.metrics)
