"""Training loops of one's own, with the three lines that record them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx

import convjax
from convjax.data import epoch_order
from convjax.stats.record import Record

HostArray = npt.NDArray[Any]


class Trained(NamedTuple):
    """A training and what it has reached.

    Attributes:
      record: of its steps.
      reached: a figure of its task on examples that it was not trained on, such as the accuracy.
    """

    record: Record
    reached: float


def run_nnx(
    step: Callable[..., Any],
    model: nnx.Module,
    tx: optax.GradientTransformation,
    batches: Iterable[tuple[Any, ...]],
    **options: Any,
) -> Record:
    """Returns the record of `step(model, optimizer, *batch)`, which changes the first two.

    Args:
      step: before it is compiled.
      model: trained in place.
      tx: of the optimiser.
      batches: of all steps.
      **options: of `Recorder.watch`.
    """
    recorder = convjax.Recorder()
    watched = recorder.watch(step, **options)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for batch in batches:
        watched(model, optimizer, *batch)
    return recorder.record()


def run_pure(
    step: Callable[..., Any],
    state: tuple[Any, ...],
    batches: Iterable[tuple[Any, ...]],
    **options: Any,
) -> tuple[Record, tuple[Any, ...]]:
    """Returns the record and the last state of `(*state, loss) = step(*state, *batch)`."""
    recorder = convjax.Recorder()
    watched = recorder.watch(step, **options)
    for batch in batches:
        *new, _ = watched(*state, *batch)
        state = tuple(new)
    return recorder.record(), state


def batches_of(
    arrays: tuple[HostArray, ...], *, size: int, steps: int, seed: int, shuffle: bool = True
) -> Iterator[tuple[jax.Array, ...]]:
    """Yields the batches of a training, epoch by epoch.

    Args:
      arrays: such as images and labels, with the examples first.
      size: of a batch.
      steps: number of batches.
      seed: of the order.
      shuffle: False keeps the order of the arrays.
    """
    examples, left, epoch = len(arrays[0]), steps, 0
    while left:
        order: Any = np.arange(examples - examples % size).reshape(-1, size)
        if shuffle:
            order = epoch_order(examples, size, seed=seed, epoch=epoch)
        for batch in order[:left]:
            yield tuple(jax.numpy.asarray(array[batch]) for array in arrays)
        left, epoch = left - len(order[:left]), epoch + 1
