"""The commands that measure: their options and their help.

The modules that measure need JAX, and are imported when a command runs, so that help appears at
once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from convjax.terminal.options import Data, DataDir, OutFile, Quick, Rounds, Seeds

RecordsFolder = Annotated[
    Path | None,
    typer.Option(
        "--records",
        help="Folder for the records: trainings that are there are not run again. Other code "
        "needs another folder.",
    ),
]


def bench(
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    rounds: Rounds = 5,
    quick: Quick = False,
    only: Annotated[
        Literal["engines", "cadence", "quantities", "norm"] | None,
        typer.Option(help="Measure one kind of comparison, without cold starts."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead compile the training step for a chip, there or not, and count: a100, "
            "h100, h200, v5e or v6e; several times for several. --data, --rounds and --only do not "
            "apply."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="New file for the results (JSON). Default: bench.json; targets.json with --target."
        ),
    ] = None,
) -> None:
    """Measures the speed of training, in turns with PyTorch, and writes bench.json.

    With --target the training step is compiled for chips, and targets.json is written.
    """
    from experiments.bench.speed import run_bench

    run_bench(data, data_dir, rounds, quick, only, target, out)


def bench_record(quick: Quick = False, out: OutFile = Path("record.json")) -> None:
    """Measures the memory of the record of ten million steps, and writes record.json."""
    from experiments.bench.record import run_bench_record

    run_bench_record(quick, out)


def bench_watch(quick: Quick = False, out: OutFile = Path("watch.json")) -> None:
    """Measures what the statistics cost in a loop of one's own, and writes watch.json."""
    from experiments.bench.watched_loop import run_bench_watch

    run_bench_watch(quick, out)


def bench_devices(quick: Quick = False, out: OutFile = Path("devices.json")) -> None:
    """Compares training on one device with eight, of 1, 2 and 4 processes; writes devices.json."""
    from experiments.bench.devices import run_bench_devices

    run_bench_devices(quick, out)


def bench_stream(
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    rounds: Rounds = 5,
    quick: Quick = False,
    out: OutFile = Path("stream.json"),
) -> None:
    """Measures training on streamed and on resident images, and writes stream.json."""
    from experiments.bench.stream import run_bench_stream

    run_bench_stream(data, data_dir, rounds, quick, out)


def bench_sweep(
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    rounds: Rounds = 7,
    quick: Quick = False,
    out: OutFile = Path("sweep.json"),
) -> None:
    """Measures the cost of a run in a sweep of 1, 2, 4 and 8 at once, and writes sweep.json."""
    from experiments.bench.sweep import run_bench_sweep

    run_bench_sweep(data, data_dir, rounds, quick, out)


def diagnosis(
    quick: Quick = False, records: RecordsFolder = None, out: OutFile = Path("diagnosis.json")
) -> None:
    """Measures the diagnosis on trainings with injected faults, and writes diagnosis.json.

    These are 844 trainings, and 264 with weaker faults.
    """
    from experiments.diagnosis_study.run import run_diagnosis

    run_diagnosis(quick, records, out)


def diagnosis_sets(
    quick: Quick = False,
    processes: Annotated[int, typer.Option(min=1, help="Trainings that run at once.")] = 2,
    records: RecordsFolder = None,
    out: OutFile = Path("diagnosis_sets.json"),
) -> None:
    """Measures the diagnosis on reported faults and healthy trainings; writes diagnosis_sets.json.

    A quick run takes every fortieth training.
    """
    from experiments.diagnosis_study.sets import run_diagnosis_sets

    run_diagnosis_sets(quick, processes, records, out)


def fields(quick: Quick = False, out: OutFile = Path("fields.json")) -> None:
    """Compares published receptive fields with formula and measurement, and writes fields.json."""
    from experiments.receptive_fields.run import run_fields

    run_fields(quick, out)


def speedrun(
    seeds: Seeds = 20,
    data: Data = "mnist",
    data_dir: DataDir = None,
    out: OutFile = Path("speedrun.json"),
    quick: Quick = False,
) -> None:
    """Times training to a mean test accuracy of 99 %; exit status 1 if the mean is below."""
    from experiments.bench.speedrun import run_speedrun

    run_speedrun(seeds, data, data_dir, out, quick)
