"""A chunk of training steps as one loop on the device, and the rows of its record."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import platform_dependent
from jaxtyping import Int32, Num

from convjax.train.packed_rows import PackedRows, PackedScalars
from convjax.train.step import StepMetrics, StepStats

# Steps per call of the compiled program. Long enough that dispatch costs nothing (an epoch takes as
# long as in a single call, as measured), short enough for a progress bar.
CHUNK_STEPS = 128


class ChunkRows(NamedTuple):
    """The rows of a chunk's record, on the device until the host fetches them.

    Within the loop they are packed, see `PackedRows`.
    """

    metrics: Any  # `StepMetrics`, one row per step
    stats: Any  # `StepStats`, one row per watched step


# Takes the number of the step within the chunk, the state, and whether the step is watched.
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
      The state, and rows: `length` of the metrics, `length`/`every` of the statistics. Rows past
      the last step have no meaning.
    """

    def body(i: jax.Array, carry: tuple[Any, ChunkRows], watched: bool) -> tuple[Any, ChunkRows]:
        state, rows = carry
        taken, metrics, stats = take(i, scalars.unpack(state), watched)
        new = scalars.pack(taken)
        new = platform_dependent(
            i < steps,
            new,
            state,
            cpu=lambda _, new, old: new,
            default=lambda counts, *both: jax.tree.map(partial(jnp.where, counts), *both),
        )
        return new, ChunkRows(
            metrics_in.set(rows.metrics, i, metrics),
            stats_in.set(rows.stats, i // every, stats) if watched else rows.stats,
        )

    def group(g: jax.Array, carry: tuple[Any, ChunkRows]) -> tuple[Any, ChunkRows]:
        """One watched step and the unwatched ones up to the next."""
        first = g * every
        if watched:
            carry = body(first, carry, True)
        if every == 1:
            return carry
        rest = _by_platform(jnp.minimum(every, steps - first), every)
        return lax.fori_loop(int(watched), rest, lambda j, c: body(first + j, c, False), carry)

    after, metrics, stats = jax.eval_shape(lambda s: take(jnp.int32(0), s, watched), state)
    scalars = PackedScalars(state, after)
    metrics_in, stats_in = PackedRows(metrics), PackedRows(stats)
    rows = ChunkRows(metrics_in.zeros(length), stats_in.zeros(length // every))
    groups = _by_platform((steps + every - 1) // every, length // every)
    last, packed = lax.fori_loop(0, groups, group, (scalars.pack(state), rows))
    return scalars.unpack(last), ChunkRows(
        metrics_in.unpack(packed.metrics), stats_in.unpack(packed.stats)
    )


def _by_platform(counted: jax.Array, whole: int) -> jax.Array:
    """Returns the rounds of a loop: those that count on CPU, and elsewhere all.

    On CPU a loop takes its length as an argument: one program serves every number of steps, and no
    step is wasted. On an accelerator such a loop asks the host before every round, which costs as
    much as a small step. There the loop runs over all rows of the chunk, and the rows past the end
    do not change the state.
    """
    found: jax.Array = platform_dependent(
        counted, cpu=lambda rounds: rounds, default=lambda rounds: jnp.full_like(rounds, whole)
    )
    return found


def chunk_length(steps: int, every: int, platform: str) -> int:
    """Returns the steps per chunk: a multiple of `every`, or all where `every` is beyond them.

    Args:
      steps: of the training.
      every: the distance of watched steps.
      platform: of the devices, "cpu" or another.
    """
    length = CHUNK_STEPS
    if platform != "cpu":  # whose loops run over all rows of a chunk
        # Chunks of nearly equal length, so that hardly any step is wasted.
        length = -(-steps // -(-steps // CHUNK_STEPS))
    every = min(every, max(steps, length))
    return -(-length // every) * every


def bounded_length(length: int, every: int, most: int) -> int:
    """Returns the steps per chunk, at most `most` if possible.

    The same steps are watched as without the bound: the number is a multiple of `every`, or a
    divisor of it, so that only the first step of a chunk is watched, or none. It is at least two,
    because XLA compiles a chunk of one step differently, with other rounding.

    Args:
      length: from `chunk_length`.
      every: as for `chunk_length`, and at most `length`.
      most: the bound.
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
    order: Int32[np.ndarray, "T ..."],
    columns: Mapping[str, Num[np.ndarray, "T ..."]],
    length: int,
    fetch: Callable[[ChunkRows, int], None],
) -> Any:
    """Takes all steps of `order`, a chunk at a time, and returns the last state.

    Args:
      program: takes state, data, a chunk of order and of columns, and the number of its steps that
        count.
      state: before the first step; its buffers are donated.
      data: passed to the program as it is.
      order: the examples of each step.
      columns: the rates of each step.
      length: steps per chunk; the last chunk is padded.
      fetch: brings the rows of a chunk to the host, given the number of rows that count.
    """
    running: tuple[ChunkRows, int] | None = None
    for first in range(0, len(order), length):
        part = slice(first, first + length)
        steps = len(order[part])
        table = {name: padded(column[part], length) for name, column in columns.items()}
        state, rows = program(state, data, padded(order[part], length), table, np.int32(steps))
        # Fetching waits for a chunk: fetch only after the next has been dispatched.
        if running is not None:
            fetch(*running)
        running = rows, steps
    assert running is not None  # order is not empty
    fetch(*running)
    return state


def scoring_order(examples: int, batch_size: int, parts: int = 1) -> Int32[np.ndarray, "T B"]:
    """Returns the indices of every example once in batches, padded with −1.

    Args:
      examples: number of examples.
      batch_size: rounded up to a multiple of `parts`.
      parts: number of devices.
    """
    size = -(-min(batch_size, examples) // parts) * parts
    batches = -(-examples // size)
    order = np.full(batches * size, -1, np.int32)
    order[:examples] = np.arange(examples)
    return order.reshape(batches, size)


def padded(rows: Num[np.ndarray, "N ..."], length: int) -> Num[np.ndarray, "M ..."]:
    """Returns `length` rows, padded with zeros."""
    return np.pad(rows, [(0, length - len(rows))] + [(0, 0)] * (rows.ndim - 1))
