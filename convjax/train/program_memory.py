"""How many trainings fit into one program: an estimate of the memory that a run takes."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from convjax.train.step import TrainState, TrainStep

# A single run already keeps the cores busy, and XLA's batched products are no faster than its plain
# ones. Time per run with 1, 2, 4 and 8 at once, relative to `Trainer.run`: 1.00, 1.09, 1.13, 1.24
# at batch 64 and 0.97, 1.08, 1.13, 1.16 at batch 512 (the chapter's network on two cores that other
# work shared; README, "Speed").
RUNS_ON_CPU = 1

# Share of the free memory that a sweep takes, and the bytes assumed free where the device does not
# report its memory.
MEMORY_SHARE, UNREPORTED_BYTES = 0.5, 4 << 30


def runs_at_once(step: TrainStep, state: TrainState, data: Any, batch_size: int) -> int:
    """Returns how many runs to train in one program.

    On a CPU it is one: several at once take longer per run. Elsewhere it is as many as fit into
    half of the free memory.

    Args:
      step: the training step of each run.
      state: of a single run, on the device.
      data: the training split.
      batch_size: examples per step of each run.
    """
    (device,) = jax.tree.leaves(state)[0].devices()
    if device.platform == "cpu":
        return RUNS_ON_CPU
    reported = device.memory_stats() or {}
    free = reported.get("bytes_limit", UNREPORTED_BYTES) - reported.get("bytes_in_use", 0)
    return max(1, int(MEMORY_SHARE * free) // bytes_per_run(step, state, data, batch_size))


def bytes_per_run(step: TrainStep, state: TrainState, data: Any, batch_size: int) -> int:
    """Returns an upper bound of a run's memory: its state twice, and every value of a step at once.

    The compiler keeps far fewer values alive; how many depends on the compiler.
    """
    images = jax.ShapeDtypeStruct((batch_size, *data.images.shape[1:]), data.images.dtype)
    labels = jax.ShapeDtypeStruct((batch_size,), data.labels.dtype)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    key = None
    if step.augmenter is not None:
        key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.make_jaxpr(lambda *args: step(*args[:-1], key=args[-1]))(
        state, images, labels, scalar, scalar, key
    )
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return 2 * state_bytes + sum(map(_bytes, _values(traced.jaxpr)))


def _values(jaxpr: Any) -> Iterator[Any]:
    """Yields the types of all values that a program computes, including those of inner programs."""
    for equation in jaxpr.eqns:
        yield from (value.aval for value in equation.outvars)
        for parameter in equation.params.values():
            # A conditional has several inner programs, a loop has one.
            for part in parameter if isinstance(parameter, tuple | list) else (parameter,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from _values(inner)


def _bytes(kind: Any) -> int:
    return int(kind.size) * int(kind.dtype.itemsize)
