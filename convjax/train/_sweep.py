"""Sweeps: seeds × settings of the optimiser, several runs at a time in one program.

Each run is the training that `Trainer.run` would make of the same model, batches and table; only
the time differs, see `runs_at_once` for how many at a time are best.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax._checks import check_type, check_whole, checked_order, checked_table
from convjax._display import Displayed
from convjax.stats.record import Array
from convjax.train.device_data import Images
from convjax.train.step import TrainState, TrainStep
from convjax.train.trainer import Trainer

# A single run already keeps the cores busy, and XLA's batched products are no faster than its plain
# ones. The chapter's network on two cores that other work shared, time per run with 1, 2, 4 and 8
# at once over that of `Trainer.run`: 1.00, 1.09, 1.13, 1.24 at batch 64 and 0.97, 1.08, 1.13, 1.16
# at batch 512 (experiments/results/sweep.json, by `python -m experiments bench-sweep`).
ON_CPU = 1

# Share of the free memory that a sweep takes, and the bytes that count as free where the device
# does not tell.
SHARE, UNTOLD = 0.5, 4 << 30


@dataclass(frozen=True, repr=False)
class Sweep(Displayed):
    """What S seeds × V settings came to.

    Attributes:
      loss: (S, V, T), of each batch before its update.
      test_loss, accuracy: (S, V), on the test images after the last step.
      train_accuracy: (S, V), on the training images; None where it was not asked for.
    """

    loss: Array
    test_loss: Array
    accuracy: Array
    train_accuracy: Array | None = None

    def __repr__(self) -> str:
        seeds, settings, steps = self.loss.shape
        return f"Sweep({seeds:,} seeds, {settings:,} settings, {steps:,} steps)"

    @property
    def broken_at(self) -> Array:
        """The first step whose loss was not finite, −1 where there is none, (S, V)."""
        broken = ~np.isfinite(self.loss)
        return np.where(broken.any(-1), broken.argmax(-1), -1)

    def trained(self, accuracy: float) -> Array:
        """Tells which runs kept a finite loss and reached an accuracy, (S, V)."""
        return (self.broken_at < 0) & (self.accuracy >= accuracy)


def sweep(
    trainer: Trainer,
    models: Sequence[nnx.Module],
    data: Images,
    orders: npt.NDArray[np.integer[Any]],
    tables: Sequence[Mapping[str, npt.ArrayLike]],
    *,
    test: Images,
    scalars: Mapping[str, Sequence[float]] | None = None,
    score_training: bool = False,
    at_once: int | None = None,
) -> Sweep:
    """Trains every model with every table.

    Args:
      trainer: without a watch and on one device; its programs are kept for the next sweep.
      models: one per seed, S, which give the initial parameters and stay as they are.
      data: the training split on the device.
      orders: (S, T, B) indices of the examples of each batch.
      tables: one per setting, V: "learning_rate" and "momentum" of each step, T numbers each, as
        `schedule.table(T)` makes them.
      test: the split to score after the last step.
      scalars: of the optimiser's state, V numbers each, that hold from the first step to the last:
        "weight_decay", and for Adam "eps". Settings that differ in these alone repeat a table.
      score_training: whether the training split is scored, too.
      at_once: runs in one program; None takes what `runs_at_once` advises.

    Raises:
      ValueError: if the trainer watches layers or has several devices, there is no model or table,
        numbers of models, orders, tables and scalars do not match, at_once is below 1, or, as for
        `Trainer.run`, orders, tables or labels do not fit the data.
      TypeError: if trainer or splits are of another kind.
    """
    _check_kinds(trainer, data, test)
    for name, value, way_out in (
        ("models", models, "One network per seed: [model]."),
        ("tables", tables, "One per setting: [schedule.table(steps)]."),
    ):
        check_type(name, value, Sequence, way_out)
    if not len(models) or not len(tables) or len(orders) != len(models):
        raise ValueError(
            f"models and orders must be as many, and tables one or more, got {len(models)} models, "
            f"{len(orders)} orders and {len(tables)} tables."
        )
    checked = [checked_order(order, len(data.labels), 1) for order in orders]
    if len({order.shape for order in checked}) > 1:
        raise ValueError(
            "orders must have as many steps and examples for every seed, got the shapes "
            f"{', '.join(str(order.shape) for order in checked)}. Cut them to the shortest."
        )
    columns = [checked_table(table, len(checked[0])) for table in tables]
    values = _checked_scalars(scalars or {}, len(tables))
    first = trainer.start(models[0])
    for split in (data, test):
        trainer.check_labels(first, split)
    if at_once is None:
        at_once = runs_at_once(trainer.step, first, data, checked[0].shape[1])
    else:
        check_whole("at_once", at_once, 1)

    def start(seed: int, setting: int) -> TrainState:
        state = trainer.start(models[seed])
        own = {name: column[setting] for name, column in values.items()}
        opt_state = trainer.optimizer.with_scalars(state.opt_state, own)
        return state._replace(opt_state=opt_state)

    vmapped = trainer.vmapped_runs
    found: list[tuple[Array, ...]] = []
    for group, real in groups(len(models) * len(tables), at_once):
        pairs = [divmod(run, len(tables)) for run in group]  # (seed, setting)
        order = np.stack([checked[seed] for seed, _ in pairs], 1)
        table = stacked_tables([columns[setting] for _, setting in pairs])
        states = vmapped.start([start(*pair) for pair in pairs])
        states, measures = vmapped.run(states, data, order, table)
        scores = list(vmapped.scores(states, test))
        if score_training:
            scores.append(vmapped.scores(states, data)[1])
        found.append(tuple(array[:real] for array in (np.asarray(measures.loss).T, *scores)))
    shape = len(models), len(tables)
    arrays = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Sweep(*(array.reshape(*shape, *array.shape[1:]) for array in arrays))


def groups(runs: int, at_once: int) -> Iterator[tuple[list[int], int]]:
    """Splits runs into groups of one size, because each size is a program of its own.

    The size is the smallest that needs no more groups. The last group repeats its last run where
    runs are lacking.

    Yields:
      (the numbers of the runs, how many of them count).
    """
    number = -(-runs // at_once)
    size = -(-runs // number)
    for first in range(0, runs, size):
        group = list(range(first, min(first + size, runs)))
        yield group + group[-1:] * (size - len(group)), len(group)


def stacked_tables(tables: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Returns the tables of R runs as one: columns (T,) become (T, R)."""
    return {name: np.stack([table[name] for table in tables], 1) for name in tables[0]}


def runs_at_once(step: TrainStep, state: TrainState, data: Any, batch_size: int) -> int:
    """Returns how many runs to train in one program.

    On a CPU that is 1. Elsewhere it is as many as fit half of the device's free memory, each
    counted as `bytes_per_run`; at least 1.

    Args:
      state: of a single run, on the device.
      data: the training split.
    """
    (device,) = jax.tree.leaves(state)[0].devices()
    if device.platform == "cpu":
        return ON_CPU
    told = device.memory_stats() or {}
    free = told.get("bytes_limit", UNTOLD) - told.get("bytes_in_use", 0)
    return max(1, int(SHARE * free) // bytes_per_run(step, state, data, batch_size))


def bytes_per_run(step: TrainStep, state: TrainState, data: Any, batch_size: int) -> int:
    """Returns what a run takes at most: its state twice, and every value of a step at once.

    The compiler keeps far fewer values alive, by how many depends on it.
    """
    images = jax.ShapeDtypeStruct((batch_size, *data.images.shape[1:]), data.images.dtype)
    labels = jax.ShapeDtypeStruct((batch_size,), data.labels.dtype)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    traced = jax.make_jaxpr(step)(state, images, labels, scalar, scalar)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return 2 * held + sum(map(_bytes, _values(traced.jaxpr)))


def _values(jaxpr: Any) -> Iterator[Any]:
    """Yields the types of all values that a program computes, inner programs' among them."""
    for equation in jaxpr.eqns:
        yield from (value.aval for value in equation.outvars)
        for setting in equation.params.values():
            # A branch has several programs, a loop one.
            for part in setting if isinstance(setting, tuple | list) else (setting,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from _values(inner)


def _bytes(kind: Any) -> int:
    return int(kind.size) * int(kind.dtype.itemsize)


def _check_kinds(trainer: Any, data: Any, test: Any) -> None:
    check_type("trainer", trainer, Trainer, "Trainer(model, optimizer, watch=None) makes one.")
    if trainer.watch is not None or trainer.devices is not None:
        raise ValueError(
            f"trainer must watch nothing and have no devices of its own for a sweep, got "
            f"{trainer.watch!r} and devices={trainer.devices!r}. Make it with Trainer(…, "
            "watch=None), and look into single runs with Trainer.run."
        )
    for name, split in (("data", data), ("test", test)):
        check_type(name, split, Images, "Images.put(split) copies a split to the device.")
        if not len(split.labels):
            raise ValueError(f"{name} must hold at least one example, got none.")


def _checked_scalars(scalars: Mapping[str, Any], settings: int) -> dict[str, Array]:
    check_type("scalars", scalars, Mapping, 'Such as {"weight_decay": [0.0, 0.01]}.')
    values = {name: np.asarray(column) for name, column in scalars.items()}
    for name, column in values.items():
        if column.shape != (settings,):
            raise ValueError(
                f"scalars[{name!r}] must have one number per table ({settings}), got the shape "
                f"{column.shape}."
            )
    return values
