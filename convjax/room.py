"""How many runs of a sweep are best trained at a time: on a CPU one, elsewhere what fits."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from convjax.step import State, Step

# A single run already keeps the cores busy, and XLA's batched products are no faster than its plain
# ones. The chapter's network on two cores that other work shared, time per run with 1, 2, 4 and 8
# at once over that of `Trainer.run`: 1.00, 1.09, 1.13, 1.24 at batch 64 and 0.97, 1.08, 1.13, 1.16
# at batch 512 (experiments/results/sweep.json, by `python -m experiments bench-sweep`).
ON_CPU = 1

# Share of the free memory that a sweep takes, and the bytes that count as free where the device
# does not tell.
SHARE, UNTOLD = 0.5, 4 << 30


def runs_at_once(step: Step, state: State, data: Any, batch_size: int) -> int:
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


def bytes_per_run(step: Step, state: State, data: Any, batch_size: int) -> int:
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
