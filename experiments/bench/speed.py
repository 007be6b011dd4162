"""`python -m experiments bench`: convjax and PyTorch train the same epochs in turns.

A quick run takes three steps per epoch and two rounds.
"""

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from convjax.terminal.command import measure_to_file
from experiments.bench.case import BenchCase
from experiments.bench.cases import Timing, case_groups, cold_start, faster, ratios, take_turns
from experiments.bench.report import bar_table, bars, group_table, start_table
from experiments.bench.targets import bench_targets
from experiments.bench.worker import BenchError, Worker

BATCH_SIZES = (64, 512)
QUICK_ROUNDS = 2
NO_TORCH = (
    "PyTorch is not installed: its rows are left out. `pip install torch`; for the CPU only "
    "`pip install torch --index-url https://download.pytorch.org/whl/cpu`."
)


def has_torch() -> bool:
    """Whether PyTorch is installed; does not import it."""
    return importlib.util.find_spec("torch") is not None


def measure_speed(
    data: str,
    data_dir: Path | None,
    rounds: int,
    quick: bool,
    shown: Console,
    only: str | None = None,
) -> dict[str, Any]:
    """Measures all groups, prints the table of each when it is done, and returns the report.

    Args:
      data: a name or a folder, as for `convjax.data.load`.
      data_dir: folder of the data set's files.
      rounds: epochs of each case.
      quick: whether to take the smallest cases, for two rounds.
      shown: the console for the tables.
      only: the kind of the groups to measure; cold starts are left out. Default: all.

    Raises:
      BenchError: if a child process dies, or fails at a case that must succeed.
    """
    rounds = QUICK_ROUNDS if quick else rounds
    notes = ["quick: three steps per epoch; the figures decide nothing"] if quick else []
    notes += _busy()
    timings: list[Timing] = []
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data.npz"
        # A cache for this run only, so that torch.compile compiles each program anew.
        compiler = {"TORCHINDUCTOR_CACHE_DIR": str(path.parent / "inductor")}
        rivals = only in (None, "engines")
        engines = ["jax", "torch"] if has_torch() and rivals else ["jax"]
        workers = {
            name: stack.enter_context(Worker(name, path, settings=compiler)) for name in engines
        }
        about = {name: worker.ask("about") for name, worker in workers.items()}
        jax, torch = about["jax"], about.get("torch")
        if torch is None and rivals:
            notes.append(NO_TORCH)
        elif torch and torch["accelerator"] != jax["accelerator"]:
            notes.append(f"PyTorch runs on {torch['device']}, ours on {jax['device']}.")
        sizes = BATCH_SIZES[:1] if quick else BATCH_SIZES
        found = workers["jax"].ask(
            "setup", data=data, data_dir=data_dir and str(data_dir), batch_sizes=sizes, quick=quick
        )
        if not found["batch_sizes"]:
            raise BenchError(f"data must have at least {sizes[0]} images, got {found['examples']}.")
        for group in case_groups(
            jax["layout"],
            found["batch_sizes"],
            devices=jax["devices"],
            torch=torch is not None,
            bfloat16=jax["accelerator"],
            graphs=torch is not None and torch["accelerator"],
            quick=quick,
        ):
            if only not in (None, group.kind):
                continue
            # Repeated for each group, because the machine's speed may change.
            for name, worker in workers.items():
                rates.setdefault(name, []).extend(worker.ask("rate", repeats=3)["flops"])
            images = found["images_per_epoch"][str(group.cases[0].batch_size)]
            done = take_turns(workers, group, rounds, images, notes)
            shown.print(group_table(done).rich())
            timings += done
        ours = BenchCase("convjax", jax["layout"])
        starts = []
        for size in [] if only else found["batch_sizes"]:
            plain = replace(ours, batch_size=size)
            for stats in ("none",) if quick else ("none", "all"):
                starts.append(cold_start(replace(plain, stats=stats), path))
                if (rival := faster(timings, plain, stats)) is not None:
                    starts.append(cold_start(rival.case, path))
    rate = max(median(flops) for flops in rates.values())
    roof = rate / found["flops_per_image"]
    return {
        "environment": jax["environment"],
        "device": jax["device"],
        "torch": torch,
        "data": {"name": data, **found},
        "rounds": rounds,
        "matrix_product": {"flops": rate, "measured": rates},
        "cases": [
            {
                "group": timing.group.title,
                **asdict(timing.case),
                "compile_seconds": timing.compile_seconds,
                "seconds": timing.seconds,
                "median_seconds": timing.median,
                "steps_per_second": timing.steps_per_second,
                "share_of_matrix_product": timing.share(roof),
            }
            for timing in timings
        ],
        "ratios": [
            {
                "group": ratio.above.group.title,
                "above": asdict(ratio.above.case),
                "below": asdict(ratio.below.case),
                "rounds": ratio.rounds,
                "median": ratio.median,
            }
            for ratio in ratios(timings)
        ],
        "cold_start": starts,
        # A quick run decides nothing.
        "bars": [row | ({"bar": None} if quick else {}) for row in bars(timings, starts, roof)],
        "notes": notes,
    }


def run_bench(
    data: str,
    data_dir: Path | None,
    rounds: int,
    quick: bool,
    only: str | None,
    target: Sequence[str] | None,
    out: Path | None,
) -> None:
    """Measures the speed of training, in turns with PyTorch, and writes bench.json.

    With --target the training step is compiled for chips, and targets.json is written.
    """
    if target:
        bench_targets(target, quick, out or Path("targets.json"))
        return

    def tables(report: dict[str, Any]) -> list[RichTable | str]:
        starts = report["cold_start"]
        return [
            *([start_table(starts).rich()] if starts else []),
            bar_table(report["bars"], colored=True).rich(),
        ]

    measure_to_file(
        out or Path("bench.json"),
        lambda shown: measure_speed(data, data_dir, rounds, quick, shown, only),
        tables,
    )


def _busy() -> list[str]:
    """Returns a note if other programs run: they slow PyTorch's threads more than ours."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < 0.5:
        return []
    return [f"the machine was busy at the start (load {load:.1f}): measure on an idle one."]
