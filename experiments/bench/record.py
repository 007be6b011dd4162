"""`python -m experiments bench-record`: the memory of the record of a long training.

Chunks of statistics, as `Trainer.run` fetches them, are added in turn to a record of at most 1,024
rows. Python's tracemalloc measures the peak. A quick run takes at most 20,000 steps instead of ten
million.
"""

import tracemalloc
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from convjax.runs.environment import environment
from convjax.stats.activations import ActivationStats
from convjax.stats.bins import FASTAI
from convjax.stats.parameter_forms import LOG_BINS
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.parameters import Described, Norms
from convjax.stats.record import Record
from convjax.stats.record_builder import RecordBuilder, from_steps
from convjax.terminal.command import measure_to_file
from convjax.terminal.tables import TextTable
from convjax.train.scan_loop import CHUNK_STEPS

STEPS = (1_000, 4_000, 100_000, 10_000_000)
QUICK_STEPS = (1_000, 20_000)
LAYERS, CHANNELS, PARAMETERS, VALUES = 10, 64, 20, 10_000


def chunk(steps: int, seed: int) -> Record:
    """Returns a random chunk of a record in which all quantities are watched at every step."""
    rng = np.random.default_rng(seed)

    def layer() -> ActivationStats:
        hist = rng.multinomial(VALUES, np.full(FASTAI.count + 2, 1 / (FASTAI.count + 2)), steps)
        numbers: list[Any] = list(rng.random((4, steps), np.float32))
        counts = hist.astype(np.int32)
        active = rng.random((steps, CHANNELS)) < 0.5
        kept = (*numbers, counts[:, 1:-1], counts[:, 0], counts[:, -1], active)
        return ActivationStats._make(kept)

    watched = np.arange(steps)
    norms = rng.random((3, steps, PARAMETERS), np.float32)
    magnitudes = np.ones((2, steps, PARAMETERS, LOG_BINS + 2), np.int32)
    names = tuple(f"parameter{i}" for i in range(PARAMETERS))
    loss, rate, momentum, eval_loss = rng.random((4, steps), np.float32)
    return from_steps(
        [f"layer{i}" for i in range(LAYERS)],
        [VALUES] * LAYERS,
        loss,
        rate,
        momentum,
        watched,
        [layer() for _ in range(LAYERS)],
        parameters=ParameterRecord.from_steps(
            Described(names, (LOG_BINS + 2,) * PARAMETERS, (2,) * PARAMETERS),
            watched,
            Norms._make([*norms, *magnitudes]),
        ),
        eval_loss=eval_loss,
    )


def measure_records(steps: int) -> dict[str, Any]:
    """Returns the rows, the peak in bytes and the seconds of a record of a number of steps.

    Raises:
      AssertionError: if a count was lost.
    """
    drawn = [chunk(CHUNK_STEPS, seed) for seed in range(4)]  # outside the measurement
    tracemalloc.start()
    began, record = perf_counter(), RecordBuilder()
    for i in range(steps // CHUNK_STEPS):
        # A copy, because each fetched chunk is new memory.
        record.add(deepcopy(drawn[i % len(drawn)]))
    whole = record.record()
    seconds = perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    done = steps // CHUNK_STEPS * CHUNK_STEPS
    counted = whole.hist.sum() + whole.under.sum() + whole.over.sum()
    assert counted == done * LAYERS * VALUES, "every value must be in exactly one count"
    return {"steps": done, "rows": len(whole.first), "peak_bytes": peak, "seconds": seconds}


def run_bench_record(quick: bool, out: Path) -> None:
    """Measures the memory of the record of ten million steps, and writes record.json."""
    steps = QUICK_STEPS if quick else STEPS
    measure_to_file(
        out,
        lambda _: {"environment": environment(), "records": list(map(measure_records, steps))},
        lambda report: [markdown_records(report["records"])],
    )


def markdown_records(rows: list[dict[str, Any]]) -> str:
    """Returns the table of steps, rows, memory and time."""
    cells = [
        (
            f"{row['steps']:,}",
            f"{row['rows']:,}",
            f"{row['peak_bytes'] / 2**20:.0f}",
            f"{row['seconds']:.1f}",
        )
        for row in rows
    ]
    return TextTable(("steps", "rows", "peak, MiB", "seconds"), cells).markdown()
