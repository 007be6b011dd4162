"""Several trainings in one program, mapped with `jax.vmap`, each as if it ran alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from convjax.parallel.placement import Placement
from convjax.parallel.timed_jit import TimedJit
from convjax.stats.record import Record
from convjax.stats.record_builder import from_steps
from convjax.train.evaluation import SCORED_AT_ONCE, picked, scoring_batches, total_of
from convjax.train.scan_loop import ChunkRows, chunk_length, run_chunks, scoring_order
from convjax.train.step import StepMetrics


class VmappedRuns:
    """A trainer's programs, mapped over R runs with `jax.vmap`.

    The runs share the data. Their states, orders and rates have an axis of runs, and no sum crosses
    that axis: a run that diverges does not affect the others.

    Args:
      chunk: takes a chunk of steps of one run, a pure function.
      scores: sums loss and metrics of the batches of one run, a pure function.
    """

    def __init__(self, chunk: Callable[..., Any], scores: Callable[..., Any]):
        self._stack = TimedJit(_stacked)
        self._run_chunk = TimedJit(
            _over_runs(chunk, (0, None, 1, 1, None), (0, 1)), donate_argnums=0
        )
        self._pick = TimedJit(picked)
        self._run_scores = TimedJit(_over_runs(scores, (0, None, None), 0))

    @property
    def compile_seconds(self) -> float:
        """Seconds spent so far in compiling these programs."""
        programs = self._stack, self._run_chunk, self._pick, self._run_scores
        return sum(program.compile_seconds for program in programs)

    def start(self, states: Sequence[Any]) -> Any:
        """Returns the states of R runs as one tree, whose arrays have the axis R first."""
        return self._stack(*states)

    def run(
        self,
        states: Any,
        data: Any,
        orders: Sequence[Int[np.ndarray, "T B"]],
        tables: Sequence[Mapping[str, Num[np.ndarray, " T"]]],
        *,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> tuple[Any, list[Record]]:
        """Takes T steps of R runs and returns the new states and the record of each run.

        Args:
          states: from `start` or an earlier call. Their buffers are donated.
          data: the training split on the device.
          orders: for each run, the indices of the examples of each batch.
          tables: for each run, the columns "learning_rate" and "momentum".
          on_steps: called with the number of steps of each run whose record has arrived.
        """
        chunks: list[StepMetrics] = []

        def fetch(rows: ChunkRows, steps: int) -> None:
            metrics = jax.device_get(rows.metrics)
            chunks.append(jax.tree.map(lambda column: column[:steps], metrics))
            on_steps(steps)

        order = np.stack(orders, 1)  # (T, R, B): a chunk is cut along the first axis
        columns = {name: np.stack([table[name] for table in tables], 1) for name in tables[0]}
        length = chunk_length(len(order), 1, Placement(None).platform)
        states = run_chunks(self._run_chunk, states, data, order, columns, length, fetch)
        metrics = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
        records = [
            from_steps((), (), loss, learning_rate, momentum, np.arange(0), ())
            for loss, learning_rate, momentum in zip(*(c.T for c in metrics), strict=True)
        ]
        return states, records

    def scores(
        self, states: Any, data: Any
    ) -> tuple[Float[np.ndarray, " R"], dict[str, Float[np.ndarray, " R"]]]:
        """Returns the mean loss and the mean of each metric of R runs on a split."""
        examples, runs = len(data.labels), len(jax.tree.leaves(states)[0])
        # Over all runs together: as much memory as one run takes alone.
        order = scoring_order(examples, max(1, SCORED_AT_ONCE // runs))
        sums = [
            self._run_scores(states, self._pick(data, rows), counted)
            for rows, counted in scoring_batches(order)
        ]
        return jax.tree.map(lambda x: x / examples, total_of(jax.device_get(sums)))


def _over_runs(function: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:
    """Returns the function mapped over runs, whose axis in each argument is as in `jax.vmap`."""
    mapped = jax.vmap(function, in_axes, out_axes)

    def over_runs(states: Any, *args: Any) -> Any:
        if len(jax.tree.leaves(states)[0]) > 1:
            return mapped(states, *args)
        # A single run needs no batched products: XLA on CPU takes 1.5 times as long for them.
        alone = [
            arg if axis is None else jax.tree.map(lambda a, axis=axis: jnp.squeeze(a, axis), arg)
            for arg, axis in zip((states, *args), in_axes, strict=True)
        ]
        results = function(*alone)
        axes = (out_axes,) * len(results) if isinstance(out_axes, int) else out_axes
        return tuple(
            jax.tree.map(lambda a, axis=axis: jnp.expand_dims(a, axis), part)
            for part, axis in zip(results, axes, strict=True)
        )

    return over_runs


def _stacked(*states: Any) -> Any:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
