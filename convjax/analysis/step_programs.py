"""Compiled steps, alone or in a loop, and their times measured in turns."""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import jax

from convjax.analysis.training_step import State

# A measurement repeats the step for about this time.
SECONDS = 0.02


def compile_step(
    step: Callable[[State], State], state: Any, platform: str, *, in_loop: bool, force: str = ""
) -> jax.stages.Compiled:
    """Compiles a step, or a loop of an unknown number of steps.

    Args:
      step: maps a state to the next.
      state: arrays, or their shapes with the placement on a chip.
      platform: that the program is lowered for.
      in_loop: whether the program takes the number of steps and repeats the step.
      force: as in `LayoutProgram`.
    """

    def repeated(state: State, count: Any) -> State:
        return jax.lax.fori_loop(0, count, lambda _, state: step(state), state)

    traced = jax.jit(repeated).trace(state, 1) if in_loop else jax.jit(step).trace(state)
    return traced.lower(lowering_platforms=(platform,)).compile(conv_options(force))


def conv_options(force: str) -> dict[str, Any]:
    """Returns the compiler's options that force an order in memory, as in `LayoutProgram`."""
    return {f"xla_gpu_force_conv_{force}": True} if force else {}


def runner(compiled: Any, state: Any, in_loop: bool) -> Callable[[int], None]:
    """Returns a function that takes a number of steps and runs them to the end."""

    def run(count: int) -> None:
        if in_loop:
            jax.block_until_ready(compiled(state, count))
            return
        now = state
        for _ in range(count):
            now = compiled(now)
        jax.block_until_ready(now)

    return run


def seconds_in_turns(runs: Sequence[Callable[[int], None]], rounds: int) -> list[float]:
    """Returns the median time of a step of each program, measured in turns.

    Args:
      runs: each takes a number of steps and runs them.
      rounds: measurements of each.
    """

    def seconds(run: Callable[[int], None], count: int) -> float:
        began = perf_counter()
        run(count)
        return (perf_counter() - began) / count

    counts = []
    for run in runs:
        run(1)
        counts.append(max(1, round(SECONDS / max(seconds(run, 1), 1e-6))))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for i, run in enumerate(runs):
            times[i].append(seconds(run, counts[i]))
    return list(map(median, times))
