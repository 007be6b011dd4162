"""`python -m experiments bench`: convjax and PyTorch train the same epochs in turns.

`experiments.bench.cases` compares, `experiments.bench.worker` holds the child processes,
`experiments.bench.torch_engine` what PyTorch runs, and `experiments.bench.report` the tables.
"""

import importlib.util
import os
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from experiments.bench.case import BenchCase
from experiments.bench.cases import Timing, case_groups, cold_start, faster, ratios, take_turns
from experiments.bench.report import bar_table, bars, group_table, start_table
from experiments.bench.worker import BenchError, Worker
from experiments.terminal.options import Data, DataDir, OutFile, mistakes_reported, prepare_file

BATCH_SIZES = (64, 512)
Kind = Literal["engines", "cadence", "quantities", "norm"]
QUICK_ROUNDS = 2
NO_TORCH = (
    "PyTorch is not installed: its rows are left out. `pip install torch`; for CPU alone "
    "`pip install torch --index-url https://download.pytorch.org/whl/cpu`."
)


def has_torch() -> bool:
    """Tells whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def measure_speed(
    data: str,
    data_dir: Path | None,
    rounds: int,
    quick: bool,
    shown: Console,
    only: str | None = None,
) -> dict[str, Any]:
    """Measures everything, prints each group's table as it is done, and returns the report.

    Args:
      only: one kind of group, without PyTorch where it has none, and without cold starts.

    Raises:
      BenchError: if a child dies, or refuses what it must be able to do.
    """
    rounds = QUICK_ROUNDS if quick else rounds
    notes = ["quick: three steps per epoch; the figures decide nothing"] if quick else []
    notes += _busy()
    timings: list[Timing] = []
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data.npz"
        # What torch.compile compiles is kept for this run alone, so that its time is the first.
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
            raise BenchError(f"data must hold at least {sizes[0]} images, got {found['examples']}.")
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
            # Spread over the run, as the machine's speed may change.
            for name, worker in workers.items():
                rates.setdefault(name, []).extend(worker.ask("rate", repeats=3)["flops"])
            images = found["images_per_epoch"][str(group.cases[0].batch_size)]
            done = take_turns(workers, group, rounds, images, notes)
            shown.print(group_table(done))
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
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Epochs of each case, taken in turns; medians are shown.")
    ] = 5,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Three steps per epoch, two rounds: decides nothing."),
    ] = False,
    only: Annotated[
        Kind | None, typer.Option(help="One kind of comparison alone, without cold starts.")
    ] = None,
    out: OutFile = Path("bench.json"),
) -> None:
    """Measures the speed of training beside PyTorch, in turns, and writes bench.json."""
    from convjax.runs.folder import write_json
    from experiments.terminal.console import console

    shown = console()
    with mistakes_reported("stopped; nothing was written."):
        prepare_file(out)
        report = measure_speed(data, data_dir, rounds, quick, shown, only)
        write_json(out, report)
    if report["cold_start"]:
        shown.print(start_table(report["cold_start"]))
    shown.print(bar_table(report["bars"]))
    for note in report["notes"]:
        shown.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    shown.print(f"all figures: {out}", highlight=False, soft_wrap=True)


def _busy() -> list[str]:
    """Returns a note where other programs run: they slow PyTorch's threads more than ours."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < 0.5:
        return []
    return [f"the machine was busy at the start (load {load:.1f}): measure on an idle one."]
