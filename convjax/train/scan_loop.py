"""A chunk of training steps as one loop on the device, and the rows that the steps leave there."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

from convjax.train.step import StepMetrics, StepStats

# Steps per call of the compiled program. Long enough that dispatch is free (a measured epoch is no
# longer than in one call), short enough for a progress bar.
CHUNK_STEPS = 128


class ChunkRows(NamedTuple):
    """What a chunk keeps on the device until the host fetches it."""

    metrics: StepMetrics  # one row per step
    stats: StepStats  # one row per watched step


# From the number of the step within the chunk, the state, and whether it is watched.
StepFn = Callable[[jax.Array, Any, bool], tuple[Any, StepMetrics, StepStats]]


def run_steps(
    take: StepFn, state: Any, length: int, steps: jax.Array, *, every: int, watched: bool = True
) -> tuple[Any, ChunkRows]:
    """Takes `steps` steps of a training in one loop on the device.

    Args:
      take: one step; it is traced twice where `every` is above 1, watched and unwatched.
      state: any tree of arrays.
      length: number of rows, at least `steps` and a multiple of `every`.
      steps: an int32 scalar.
      every: steps 0, every, 2·every, … are watched.
      watched: False watches none, where `every` is above 1.

    Returns:
      The state, and rows: `length` of the metrics, `length`/`every` of what is watched. Those past
      the last step mean nothing.
    """

    def body(i: jax.Array, carry: tuple[Any, ChunkRows], watched: bool) -> tuple[Any, ChunkRows]:
        state, rows = carry
        new, metrics, stats = take(i, state, watched)
        if fixed_loops():
            new = jax.tree.map(lambda a, b: jnp.where(i < steps, a, b), new, state)
        return new, ChunkRows(
            _set(rows.metrics, i, metrics),
            _set(rows.stats, i // every, stats) if watched else rows.stats,
        )

    def group(g: jax.Array, carry: tuple[Any, ChunkRows]) -> tuple[Any, ChunkRows]:
        """One watched step and the unwatched ones up to the next."""
        first = g * every
        if watched:
            carry = body(first, carry, True)
        if every == 1:
            return carry
        rest = every if fixed_loops() else jnp.minimum(every, steps - first)
        return lax.fori_loop(int(watched), rest, lambda j, c: body(first + j, c, False), carry)

    _, metrics, stats = jax.eval_shape(lambda s: take(jnp.int32(0), s, watched), state)
    rows = ChunkRows(_zeros(metrics, length), _zeros(stats, length // every))
    groups = length // every if fixed_loops() else (steps + every - 1) // every
    return lax.fori_loop(0, groups, group, (state, rows))


def fixed_loops() -> bool:
    """Tells whether a chunk's loops have lengths that the compiler knows.

    On CPU a loop takes its length as an argument: one program for every number of steps, and no
    step in vain. On an accelerator such a loop asks the host before every round, which costs as
    much as a small step; there the loop has all rows of the chunk, and those past the end leave
    the state as it was.
    """
    return jax.default_backend() != "cpu"


def chunk_length(steps: int, every: int) -> int:
    """Returns the steps per chunk: a multiple of `every`, or all where `every` is beyond them."""
    length = CHUNK_STEPS
    if fixed_loops():
        # Chunks of nearly equal length, so that hardly any step is in vain.
        length = -(-steps // -(-steps // CHUNK_STEPS))
    every = min(every, max(steps, length))
    return -(-length // every) * every


def bounded_length(length: int, every: int, most: int) -> int:
    """Returns the steps per chunk where no more than `most` are to be taken at once, if possible.

    Watched steps stay where they are: the steps are a multiple of `every`, or else a divisor of it,
    so that only the first of a chunk is watched, or none. They are at least two, because of a chunk
    of one step XLA makes another program, whose results are rounded otherwise.

    Args:
      length: from `chunk_length`.
      every: as for `chunk_length`, and at most `length`.
    """
    most = max(most, 2)
    if most >= every:
        return min(length, most // every * every)
    divisors = [n for n in range(2, every + 1) if every % n == 0]
    return max((n for n in divisors if n <= most), default=divisors[0])


def run_chunks(
    program: Callable[..., tuple[Any, ChunkRows]],
    state: Any,
    data: Any,
    order: npt.NDArray[np.int32],
    columns: Mapping[str, npt.NDArray[Any]],
    length: int,
    fetch: Callable[[ChunkRows, int], None],
) -> Any:
    """Takes all steps of `order`, a chunk at a time, and returns the last state.

    Args:
      program: takes state, data, a chunk of order and of columns, and how many of its steps count.
      order, columns: with the step as their first axis.
      length: steps per chunk; the last is filled up.
      fetch: brings the rows of a chunk to the host, given how many of them count.
    """
    running: tuple[ChunkRows, int] | None = None
    for first in range(0, len(order), length):
        part = slice(first, first + length)
        steps = len(order[part])
        table = {name: padded(column[part], length) for name, column in columns.items()}
        state, rows = program(state, data, padded(order[part], length), table, np.int32(steps))
        # Fetching waits for a chunk: do so only once the next is on its way.
        if running is not None:
            fetch(*running)
        running = rows, steps
    assert running is not None  # order is not empty
    fetch(*running)
    return state


def scoring_order(examples: int, batch_size: int, parts: int = 1) -> npt.NDArray[np.int32]:
    """Returns every example once, in batches that are a multiple of `parts`, then −1."""
    size = -(-min(batch_size, examples) // parts) * parts
    batches = -(-examples // size)
    order = np.full(batches * size, -1, np.int32)
    order[:examples] = np.arange(examples)
    return order.reshape(batches, size)


def padded(rows: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Fills up to `length` rows with zeros."""
    return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def _zeros(row: Any, length: int) -> Any:
    """Returns room for `length` rows like `row`, a tree of arrays."""
    return jax.tree.map(lambda a: jnp.zeros((length, *a.shape), a.dtype), row)


def _set(rows: Any, i: jax.Array, row: Any) -> Any:
    return jax.tree.map(lambda a, b: a.at[i].set(b), rows, row)
