"""Sweeps: seeds × settings of the optimiser, several runs at a time in one program.

Each run takes the same steps as `Trainer.run` with the same model, batches and table. Only the time
differs: `convjax.train.program_memory.runs_at_once` decides how many runs share a program.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from convjax._checks import (
    check_flags,
    check_function,
    check_not_negative,
    check_type,
    check_whole,
)
from convjax._display import Displayed
from convjax.stats.record import Record
from convjax.stats.record_builder import concatenate
from convjax.train._arguments import checked_order, checked_table
from convjax.train.augmentation import step_columns
from convjax.train.device_data import Images
from convjax.train.plan import Plan
from convjax.train.program_memory import runs_at_once
from convjax.train.progress import Progress
from convjax.train.step import TrainState
from convjax.train.trainer import Trainer


class SweepRun(NamedTuple):
    """A finished run of a sweep.

    Attributes:
      seed, setting: its indices among the models and among the tables.
      record: loss, rate and momentum of every step.
      metrics: a row for each evaluation, as in `FitResult`. Seconds are the run's share of those of
        its group.
    """

    seed: int
    setting: int
    record: Record
    metrics: list[dict[str, Any]]

    def __repr__(self) -> str:
        last = self.metrics[-1] if self.metrics else {}
        accuracy = f", accuracy {last['accuracy']:.4g}" if "accuracy" in last else ""
        return f"SweepRun(seed {self.seed}, setting {self.setting}, {self.record!r}{accuracy})"


@dataclass(frozen=True, repr=False)
class Sweep(Displayed):
    """The results of S seeds × V settings.

    Attributes:
      loss: of each batch before its update.
      test_loss, accuracy: on the test images after the last step.
      train_accuracy: on the training images after the last step; None unless `score_training`.
    """

    loss: Float[np.ndarray, "S V T"]
    test_loss: Float[np.ndarray, "S V"]
    accuracy: Float[np.ndarray, "S V"]
    train_accuracy: Float[np.ndarray, "S V"] | None = None

    def __repr__(self) -> str:
        seeds, settings, steps = self.loss.shape
        return f"Sweep({seeds:,} seeds, {settings:,} settings, {steps:,} steps)"

    @property
    def broken_at(self) -> Int[np.ndarray, "S V"]:
        """The first step whose loss was not finite, −1 where every loss was finite."""
        broken = ~np.isfinite(self.loss)
        return np.where(broken.any(-1), broken.argmax(-1), -1)

    def trained(self, accuracy: float) -> Bool[np.ndarray, "S V"]:
        """Returns whether each run kept a finite loss and reached an accuracy."""
        return (self.broken_at < 0) & (self.accuracy >= accuracy)


def sweep(
    trainer: Trainer,
    models: Sequence[nnx.Module],
    data: Images,
    orders: Int[Array | np.ndarray, "S T B"] | Sequence[Any],
    tables: Sequence[Mapping[str, Any]],
    *,
    test: Images,
    epochs: int = 1,
    evaluations: int = 1,
    scalars: Mapping[str, Sequence[float]] | None = None,
    score_training: bool = False,
    at_once: int | None = None,
    seeds: Sequence[int] | None = None,
    on_steps: Callable[[int], None] = lambda steps: None,
    on_run: Callable[[SweepRun], None] = lambda run: None,
) -> Sweep:
    """Trains every model with every table.

    Args:
      trainer: without a watch and on one device. Its programs are kept for the next sweep.
      models: one per seed, S. They give the initial parameters and are not changed.
      data: the training split on the device.
      orders: for each seed, the indices of the examples of each batch.
      tables: one per setting, V: "learning_rate" and "momentum" of each step, T numbers each, as
        `schedule.table(T)` makes them.
      test: the split to score.
      epochs, evaluations: the test split is scored so many times in each of so many epochs, as in
        `Plan`. By default it is scored after the last step only.
      scalars: values in the optimiser's state that stay constant during a run, V numbers each:
        "weight_decay", and for Adam "eps". Settings that differ only in these repeat a table.
      score_training: whether the training split is scored after the last step, too.
      at_once: how many runs share a program; None lets `runs_at_once` decide.
      seeds: of the trainer's augmentations, one for each model; None stands for 0 to S − 1.
      on_steps: called with the number of steps of each run of the group whose record has arrived.
      on_run: called with each run as soon as its group has finished, in the order of the settings
        and, within a setting, of the seeds.

    Raises:
      ValueError: if the trainer watches layers or has several devices, there is no model or table,
        the numbers of models, orders, tables and scalars do not match, the steps are not a multiple
        of the epochs, at_once is below 1, or, as for `Trainer.run`, orders, tables or labels do not
        fit the data.
      TypeError: if trainer, splits, on_steps or on_run are of another type.

    Examples:
      Two seeds and three learning rates, four steps each:

      >>> import numpy as np
      >>> import convjax
      >>> from flax import nnx
      >>> models = [convjax.LinearNet((16, 3), rngs=nnx.Rngs(seed)) for seed in range(2)]
      >>> trainer = convjax.Trainer(models[0], convjax.sgd(), watch=None)
      >>> random = np.random.default_rng(0)
      >>> pixels = random.integers(0, 256, (20, 4, 4, 1), np.uint8)
      >>> labels = np.arange(20, dtype=np.int32) % 3
      >>> images = convjax.Images.put(convjax.data.Split(pixels, labels))
      >>> orders = random.integers(0, 20, (2, 4, 5))
      >>> tables = [convjax.constant(rate).table(4) for rate in (0.01, 0.1, 1.0)]
      >>> runs = []
      >>> found = convjax.sweep(
      ...     trainer, models, images, orders, tables, test=images, on_run=runs.append
      ... )
      >>> found
      Sweep(2 seeds, 3 settings, 4 steps)
      >>> found.accuracy.shape
      (2, 3)
      >>> [(run.setting, run.seed) for run in runs]
      [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
      >>> runs[0].record.steps, len(runs[0].metrics)
      (4, 1)
    """
    _check_kinds(trainer, data, test)
    for name, value, fix in (
        ("models", models, "Pass one network per seed: [model]."),
        ("tables", tables, "Pass one per setting: [schedule.table(steps)]."),
    ):
        check_type(name, value, Sequence, fix)
    check_function("on_steps", on_steps, "of a number of steps")
    check_function("on_run", on_run, "of a SweepRun")
    check_flags(score_training=score_training)
    if not len(models) or not len(tables) or len(orders) != len(models):
        raise ValueError(
            "models must be one or more, with an order for each, and tables one or more, got "
            f"{len(models)} models, {len(orders)} orders and {len(tables)} tables."
        )
    # Before any run: the last of the models may be the one that does not fit.
    for model in models:
        trainer.step.split(model)
    first = trainer.start(models[0])
    for name, split in (("data", data), ("test", test)):
        trainer.check(first, split, name, training=split is data)
    checked = [checked_order(order, len(data.labels), 1) for order in orders]
    if len({order.shape for order in checked}) > 1:
        raise ValueError(
            "orders must have the same numbers of steps and examples for every seed, got the "
            f"shapes {', '.join(str(order.shape) for order in checked)}. Cut them to the shortest."
        )
    columns = [checked_table(table, len(checked[0])) for table in tables]
    seeds = range(len(models)) if seeds is None else seeds
    check_type("seeds", seeds, Sequence, "Pass one whole number per model.")
    if len(seeds) != len(models):
        raise ValueError(
            f"seeds must be one for each of the {len(models)} models, got {len(seeds)}. Leave it "
            "out for 0, 1, …"
        )
    # Without augmentations the programs take no such columns.
    draws: list[dict[str, Any]] = [
        {} if trainer.augment is None else step_columns(seed, 0, len(checked[0])) for seed in seeds
    ]
    plan = Plan(
        epochs,
        lambda epoch: np.split(checked[0], epochs)[epoch],
        columns[0],
        evaluations,
        piece=len(checked[0]),  # every piece ends with an evaluation
    )
    values = _checked_scalars(scalars or {}, len(tables))
    scored = jax.eval_shape(
        lambda state, split: trainer.step.scores(state, split.images[:2], split.labels[:2]),
        first,
        test,
    )[1]
    if "accuracy" not in scored:
        raise ValueError(
            "trainer must have the metric accuracy for a sweep, got "
            f"{', '.join(scored) or 'none'}. Pass metrics={{'accuracy': …}} to the trainer, or "
            "train the settings one by one with convjax.fit."
        )
    if at_once is None:
        at_once = runs_at_once(trainer.step, first, data, checked[0].shape[1])
    else:
        check_whole("at_once", at_once, 1)

    def start(seed: int, setting: int) -> TrainState:
        state = trainer.start(models[seed])
        constants = {name: column[setting] for name, column in values.items()}
        opt_state = trainer.optimizer.with_scalars(state.opt_state, constants)
        return state._replace(opt_state=opt_state)

    def trained(pairs: Sequence[tuple[int, int]]) -> list[SweepRun]:
        """Returns the runs of one group, given as pairs of seed and setting."""
        vmapped = trainer.vmapped_runs
        states = vmapped.start([start(*pair) for pair in pairs])
        runs = [Progress() for _ in pairs]
        records: list[list[Record]] = [[] for _ in pairs]
        for piece in plan.pieces(0):
            began, compiled = time.perf_counter(), trainer.compile_seconds
            states, arrived = vmapped.run(
                states,
                data,
                [checked[seed][piece.steps] for seed, _ in pairs],
                [_cut(columns[setting] | draws[seed], piece.steps) for seed, setting in pairs],
                on_steps=on_steps,
            )
            losses, metrics = vmapped.scores(states, test)
            seconds = time.perf_counter() - began
            compile_seconds = trainer.compile_seconds - compiled
            for i, (progress, record) in enumerate(zip(runs, arrived, strict=True)):
                records[i].append(record)
                progress.take(record.loss)
                progress.spend(seconds / len(pairs), compile_seconds / len(pairs))
                of_run = {name: values[i] for name, values in metrics.items()}
                progress.score(piece.epoch, losses[i], of_run)
        if score_training:
            accuracies = vmapped.scores(states, data)[1]["accuracy"]
            for progress, accuracy in zip(runs, accuracies, strict=True):
                progress.metrics[-1]["train_accuracy"] = float(accuracy)
        return [
            SweepRun(*pair, concatenate(pieces), progress.metrics)
            for pair, pieces, progress in zip(pairs, records, runs, strict=True)
        ]

    finished: list[SweepRun] = []
    for group, real in groups(len(models) * len(tables), at_once):
        pairs = [divmod(run, len(models))[::-1] for run in group]
        for run in trained(pairs)[:real]:
            finished.append(run)
            on_run(run)
    return _collected(finished, len(models))


def groups(runs: int, at_once: int) -> Iterator[tuple[list[int], int]]:
    """Splits runs into groups of one size, because each size is a program of its own.

    The size is the smallest that needs no more groups. The last group repeats its last run where
    runs are lacking.

    Yields:
      The numbers of the runs of a group, and how many of them count.
    """
    number = -(-runs // at_once)
    size = -(-runs // number)
    for first in range(0, runs, size):
        group = list(range(first, min(first + size, runs)))
        yield group + group[-1:] * (size - len(group)), len(group)


def _cut(table: Mapping[str, Any], steps: slice) -> dict[str, Any]:
    return {name: column[steps] for name, column in table.items()}


def _collected(runs: Sequence[SweepRun], seeds: int) -> Sweep:
    """Returns the results of runs that are in the order of their settings, then of their seeds."""

    def by_seed(values: Sequence[Any]) -> Any:
        array = np.stack(values)
        return array.reshape(-1, seeds, *array.shape[1:]).swapaxes(0, 1)

    last = [run.metrics[-1] for run in runs]
    scores = {name: by_seed([row[name] for row in last]) for name in last[0]}
    return Sweep(
        by_seed([run.record.loss for run in runs]),
        scores["valid_loss"],
        scores["accuracy"],
        scores.get("train_accuracy"),
    )


def _check_kinds(trainer: Any, data: Any, test: Any) -> None:
    check_type("trainer", trainer, Trainer, "Trainer(model, optimizer, watch=None) makes one.")
    if trainer.watch is not None or trainer.devices is not None:
        raise ValueError(
            "trainer must have watch=None and devices=None for a sweep, got "
            f"watch={trainer.watch!r} and devices={trainer.devices!r}. Make it with Trainer(…, "
            "watch=None), and look into single runs with Trainer.run."
        )
    for name, split in (("data", data), ("test", test)):
        check_type(name, split, Images, "Images.put(split) copies a split to the device.")


def _checked_scalars(scalars: Any, settings: int) -> dict[str, Float[np.ndarray, " V"]]:
    check_type("scalars", scalars, Mapping, 'Pass {"weight_decay": [0.0, 0.01]}, for example.')
    values = {}
    for name, given in scalars.items():
        if np.shape(given) != (settings,):
            raise ValueError(
                f"scalars[{name!r}] must have one number per table ({settings}), got the shape "
                f"{np.shape(given)}."
            )
        for i, value in enumerate(given):
            check_not_negative(f"scalars[{name!r}][{i}]", value)
        values[name] = np.asarray(given, np.float64)
    return values
