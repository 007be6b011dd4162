"""`python -m experiments bench-sweep`: the cost of a run in a sweep, relative to a single run.

The network is the ten-digit one without statistics. In each round, `Trainer.run` trains once, and
then each number of runs at once takes the same steps. A ratio is the median of the ratios within a
round, so that a machine that slows down slows both sides. Compiling is timed separately. A quick
run takes three steps and two rounds.

Command: python -m experiments bench-sweep --data mnist5k --out sweep.json
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

from convjax.data import Dataset, epoch_order, load, normalization
from convjax.nn.models import digits_net
from convjax.optim.optimizers import adam
from convjax.optim.schedules import one_cycle
from convjax.runs.environment import environment
from convjax.terminal.command import measure_to_file
from convjax.terminal.tables import TextTable
from convjax.train.device_data import Images
from convjax.train.program_memory import bytes_per_run, runs_at_once
from convjax.train.trainer import Trainer

BATCH_SIZES, AT_ONCE = (64, 512), (1, 2, 4, 8)
# Images of a run, for every batch size: about a second for a single run on two cores.
IMAGES = 16 << 10
QUICK_STEPS, QUICK_ROUNDS = 3, 2
LR_MAX = 0.06


class SweptRuns:
    """A compiled program for several runs at once, each with its own network."""

    def __init__(self, dataset: Dataset, batch_size: int, steps: int, at_once: int):
        examples = len(dataset.train.labels)
        mean, std = normalization(dataset.train.images)
        networks = [
            digits_net(
                in_features=dataset.train.images.shape[-1],
                classes=len(dataset.class_names),
                rngs=nnx.Rngs(seed),
            )
            for seed in range(at_once)
        ]
        # A separate trainer, whose seconds of compiling are those of this program.
        self.trainer = Trainer(networks[0], adam(), mean=mean, std=std, watch=None)
        self.data = Images.put(dataset.train)
        self.starts = [self.trainer.start(network) for network in networks]
        epochs = -(-steps * batch_size // examples) + 1  # an epoch omits an incomplete last batch
        self.orders = [
            np.concatenate(
                [epoch_order(examples, batch_size, seed=seed, epoch=i) for i in range(epochs)]
            )[:steps]
            for seed in range(at_once)
        ]
        table = one_cycle(steps, LR_MAX).table(steps)
        self.table = {name: np.asarray(column) for name, column in table.items()}
        self.seconds: list[float] = []
        compiled = self.trainer.compile_seconds
        self.train()
        self.compile_seconds = self.trainer.compile_seconds - compiled

    def train_alone(self) -> float:
        """Takes all steps of the first run with `Trainer.run`; returns the seconds."""
        state = jax.block_until_ready(jax.tree.map(jnp.copy, self.starts[0]))
        began = time.perf_counter()
        jax.block_until_ready(self.trainer.run(state, self.data, self.orders[0], self.table)[0])
        return time.perf_counter() - began

    @property
    def at_once(self) -> int:
        """The number of runs."""
        return len(self.starts)

    def train(self) -> float:
        """Takes all steps of all runs at once; returns the seconds per run."""
        vmapped = self.trainer.vmapped_runs
        states = jax.block_until_ready(vmapped.start(self.starts))
        began = time.perf_counter()
        tables = [self.table] * self.at_once
        jax.block_until_ready(vmapped.run(states, self.data, self.orders, tables)[0])
        return (time.perf_counter() - began) / self.at_once


def measure_sweeps(dataset: Dataset, rounds: int, quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each batch size and number of runs at once.

    Raises:
      ValueError: if the data set is smaller than every batch.
    """
    rows = []
    sizes = [size for size in BATCH_SIZES if size <= len(dataset.train.labels)]
    if not sizes:
        raise ValueError(
            f"data must have at least {BATCH_SIZES[0]} images, got {len(dataset.train.labels)}."
        )
    for size in sizes[: 1 if quick else None]:
        steps = QUICK_STEPS if quick else IMAGES // size
        cases = [SweptRuns(dataset, size, steps, n) for n in (AT_ONCE[:2] if quick else AT_ONCE)]
        first, alone = cases[0], []
        first.train_alone()  # compiles
        for _ in range(QUICK_ROUNDS if quick else rounds):
            alone.append(first.train_alone())
            for case in cases:
                case.seconds.append(case.train())
        advised = first.trainer.step, first.starts[0], first.data, size
        for case in cases:
            ratios = [a / b for a, b in zip(case.seconds, alone, strict=True)]
            rows.append(
                {
                    "batch_size": size,
                    "at_once": case.at_once,
                    "steps": steps,
                    "compile_seconds": case.compile_seconds,
                    "seconds_alone": alone,
                    "seconds_per_run": case.seconds,
                    "median_seconds_per_run": median(case.seconds),
                    "ratio": median(ratios),
                    "bytes_per_run": bytes_per_run(*advised),
                    "default_at_once": runs_at_once(*advised),
                }
            )
    return rows


def cost_table(rows: list[dict[str, Any]]) -> TextTable:
    """Returns the table of what a run costs: seconds, and the ratio to one of `Trainer.run`."""
    cells = []
    for row in rows:
        default = " (default)" if row["at_once"] == row["default_at_once"] else ""
        cells.append(
            (
                str(row["batch_size"]),
                f"{row['at_once']}{default}",
                f"{row['compile_seconds']:.1f}",
                f"{row['median_seconds_per_run']:.3f}",
                f"{row['ratio']:.2f}",
            )
        )
    headings = ("batch", "runs at once", "compile s", "s per run", "run / Trainer.run")
    return TextTable(headings, cells, "a run of a sweep (median of the rounds)", left=0)


def markdown_costs(rows: list[dict[str, Any]]) -> str:
    """Returns the same table in Markdown."""
    return cost_table(rows).markdown(rule=" --- ")


def run_bench_sweep(data: str, data_dir: Path | None, rounds: int, quick: bool, out: Path) -> None:
    """Measures the cost of a run in a sweep of 1, 2, 4 and 8 at once, and writes sweep.json."""

    def measure(_: Console) -> dict[str, Any]:
        rows = measure_sweeps(load(data, data_dir=data_dir), rounds, quick)
        return {"environment": environment(), "data": data, "quick": quick, "sweeps": rows}

    measure_to_file(out, measure, lambda report: [cost_table(report["sweeps"]).rich()])
