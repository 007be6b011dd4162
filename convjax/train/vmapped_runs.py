"""Several trainings side by side in one program, each as if it were alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from convjax.parallel.timed_jit import TimedJit
from convjax.train.scan_loop import ChunkRows, chunk_length, run_chunks, scoring_order
from convjax.train.step import StepMetrics

# Examples that are scored at a time, of all runs together: as much memory as for a run alone.
SCORED = 1000


class VmappedRuns:
    """A trainer's programs, mapped over R runs with `jax.vmap`.

    What the runs have in common is the data. States, orders and rates have an axis of the runs, and
    no sum crosses it: a run that diverges leaves its neighbours alone.

    Args:
      chunk, scores: the pure functions of `convjax.Trainer` for one run.
    """

    def __init__(self, chunk: Callable[..., Any], scores: Callable[..., Any]):
        self._stack = TimedJit(_stacked)
        self._run_chunk = TimedJit(
            _over_runs(chunk, (0, None, 1, 1, None), (0, 1)), donate_argnums=0
        )
        self._run_scores = TimedJit(_over_runs(scores, (0, None, None), 0))

    @property
    def compile_seconds(self) -> float:
        """Seconds spent so far in compiling these programs."""
        programs = self._stack, self._run_chunk, self._run_scores
        return sum(program.compile_seconds for program in programs)

    def start(self, states: Sequence[Any]) -> Any:
        """Returns the states of R runs as one tree, whose arrays have the axis R first."""
        return self._stack(*states)

    def run(
        self,
        states: Any,
        data: Any,
        order: npt.NDArray[np.int32],
        table: Mapping[str, npt.NDArray[Any]],
        *,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> tuple[Any, StepMetrics]:
        """Takes T steps of R runs: (new states, what each step told, NumPy arrays (T, R)).

        Args:
          states: from `start` or an earlier call, which are given up.
          data: the training split on the device.
          order: (T, R, B) indices of the examples of each batch.
          table: "learning_rate" and "momentum", (T, R) each.
          on_steps: called with the number of steps of each run whose record has arrived.
        """
        pieces: list[StepMetrics] = []

        def fetch(rows: ChunkRows, steps: int) -> None:
            measures = jax.device_get(rows.measures)
            pieces.append(jax.tree.map(lambda column: column[:steps], measures))
            on_steps(steps)

        length = chunk_length(len(order), 1)
        states = run_chunks(self._run_chunk, states, data, order, table, length, fetch)
        return states, jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)

    def scores(self, states: Any, data: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Returns mean loss and accuracy of R runs on a split, (R,) each, float64."""
        examples, runs = len(data.labels), len(jax.tree.leaves(states)[0])
        order = scoring_order(examples, max(1, SCORED // runs))
        sums = self._run_scores(states, data, order)
        total, correct = (np.asarray(array, np.float64) for array in sums)
        return total / examples, correct / examples


def _over_runs(function: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:
    """Returns the function for several runs, whose axis lies where `jax.vmap` is told."""
    mapped = jax.vmap(function, in_axes, out_axes)

    def several(states: Any, *args: Any) -> Any:
        if len(jax.tree.leaves(states)[0]) > 1:
            return mapped(states, *args)
        # One run needs no batched products, which XLA on CPU computes half as fast again.
        alone = [
            arg if axis is None else jax.tree.map(lambda a, axis=axis: jnp.squeeze(a, axis), arg)
            for arg, axis in zip((states, *args), in_axes, strict=True)
        ]
        found = function(*alone)
        axes = (out_axes,) * len(found) if isinstance(out_axes, int) else out_axes
        return tuple(
            jax.tree.map(lambda a, axis=axis: jnp.expand_dims(a, axis), part)
            for part, axis in zip(found, axes, strict=True)
        )

    return several


def _stacked(*states: Any) -> Any:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
