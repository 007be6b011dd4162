"""`python -m experiments bench`: convjax and PyTorch train the same epochs in turns.

Cases that are compared form a group; in each round every case of the group trains one epoch, from
the same initial parameters. A ratio is the median of the ratios within a round, so that a machine
that slows down slows both sides. `experiments.bench_worker` holds the children, and
`experiments.torch_loops` what PyTorch runs.
"""

import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from experiments.bench_worker import BenchError, Case, RefusalError, Worker

BATCH_SIZES = (64, 512)
QUICK_ROUNDS = 2
# Between turns, because idle threads of OpenMP look for work for some milliseconds.
PAUSE_SECONDS = 0.02
NO_TORCH = (
    "PyTorch is not installed: its rows are left out. `pip install torch`; for CPU alone "
    "`pip install torch --index-url https://download.pytorch.org/whl/cpu`."
)
# Bars on PyTorch / ours, by statistics and batch size; on statistics / none; and so on.
FASTER = {("none", 64): 4.0, ("none", 512): 2.0, ("all", 64): 6.0, ("all", 512): 3.0}
OVERHEAD = {("scalars", 1): 1.05, ("all", 1): 1.25, ("all", 8): 1.05}
NORM, SHARE, COMPILE = 1.25, 0.4, (1.5, 0.3)


@dataclass(frozen=True)
class Group:
    """Cases that take turns; our own plain epoch, the measure of the others, comes first."""

    kind: str  # "engines", "cadence" or "norm"
    cases: tuple[Case, ...]

    @property
    def title(self) -> str:
        """What the cases have in common."""
        case = self.cases[0]
        norm = "" if self.kind == "norm" else f", {case.norm or 'no'} norm"
        return f"{self.kind}, batch {case.batch_size}{norm}, {case.dtype}"


@dataclass
class Timing:
    """The epochs of one case within one group, one per round, of `images` images each."""

    group: Group
    case: Case
    images: int
    compile_seconds: float | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of an epoch: the median over the rounds."""
        return median(self.seconds)

    @property
    def steps_per_second(self) -> float:
        """Of the epoch that takes the median."""
        return self.images / self.case.batch_size / self.median

    def share(self, roof: float) -> float | None:
        """Returns images per second as a share of `roof`, which is a roof for float32 alone."""
        return self.images / self.median / roof if self.case.dtype == "float32" else None


@dataclass(frozen=True)
class Ratio:
    """How much longer one case takes than another that it took turns with."""

    above: Timing
    below: Timing

    @property
    def rounds(self) -> list[float]:
        """The ratio within each round."""
        pairs = zip(self.above.seconds, self.below.seconds, strict=True)
        return [above / below for above, below in pairs]

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return median(self.rounds)


def has_torch() -> bool:
    """Tells whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def plan(
    layout: str,
    batch_sizes: Sequence[int],
    *,
    torch: bool,
    bfloat16: bool,
    graphs: bool,
    quick: bool,
) -> list[Group]:
    """Returns the groups; where a kind of case makes no sense, its switch leaves it out.

    Args:
      layout: ours by default on this machine.
      batch_sizes: for which the data suffice.
      torch: PyTorch is installed.
      bfloat16: the device computes in it.
      graphs: PyTorch runs on CUDA.
      quick: one layout each, no batch norm beside PyTorch, nothing that compiles for long.
    """
    ours = Case("convjax", layout)
    layouts = sorted({"NHWC", "NCHW", "CHWN"} - {layout})
    formats, kinds = ["NCHW", "NHWC"], [("torch", "none"), ("torch", "all")]
    if not quick:
        kinds += [("torch-compile", "none")]
        kinds += [("torch-graph", "none"), ("torch-graph", "all")] if graphs else []
    dtypes = ["float32"] + (["bfloat16"] if bfloat16 and not quick else [])
    groups = []
    for dtype in dtypes:
        for norm in (None,) if quick else (None, "batch"):
            for size in batch_sizes:
                plain = replace(ours, norm=norm, batch_size=size, dtype=dtype)
                cases = [replace(plain, stats=stats) for stats in ("none", "all")]
                if not quick:
                    cases += [replace(case, layout=x) for x in layouts for case in cases[:2]]
                cases += [
                    replace(plain, program=program, layout=order, stats=stats)
                    for program, stats in (kinds if torch else [])
                    for order in (formats[:1] if quick else formats)
                ]
                groups.append(Group("engines", tuple(cases)))
    if 64 in batch_sizes:
        cadence = [("none", 1), ("scalars", 1), ("all", 1), ("all", 8)]
        cadence += [] if quick else [("all", 16), ("all", 256)]
        cases = [replace(ours, stats=stats, every=every) for stats, every in cadence]
        groups.append(Group("cadence", tuple(cases)))
    for size in batch_sizes:
        plain = replace(ours, batch_size=size)
        groups.append(Group("norm", (plain, replace(plain, norm="batch"))))
    return groups


def take_turns(
    workers: Mapping[str, Worker], group: Group, rounds: int, images: int, notes: list[str]
) -> list[Timing]:
    """Prepares the cases of a group, then lets each train one epoch per round."""
    timings = []
    for case in group.cases:
        try:
            reply = workers[case.engine].ask("prepare", case)
        except RefusalError as error:
            # Not every machine can compile for PyTorch; that is worth a note and no more.
            if case.program in ("convjax", "torch"):
                raise
            notes.append(f"{_label(case)} left out in {group.title}: {str(error)[:300]}")
            continue
        timings.append(Timing(group, case, images, reply["compile_seconds"]))
    for turn in range(rounds):
        first = turn % len(timings)  # nobody always follows the same neighbour
        for timing in timings[first:] + timings[:first]:
            sleep(PAUSE_SECONDS)
            timing.seconds.append(workers[timing.case.engine].ask("run", timing.case)["seconds"])
    return timings


def ratios(timings: Sequence[Timing]) -> list[Ratio]:
    """Compares each of our cases with our plain one, and PyTorch's with ours that does as much."""
    found = []
    for above in timings:
        plain = above.group.cases[0]
        if above.case != plain:
            stats = above.case.stats if above.case.engine == "torch" else plain.stats
            wanted = (above.group, replace(plain, stats=stats))
            found += [Ratio(above, t) for t in timings if (t.group, t.case) == wanted]
    return found


def faster(timings: Sequence[Timing], plain: Case, stats: str) -> Timing | None:
    """Returns PyTorch's eager loop beside `plain` in whichever memory format is faster."""
    found = [
        timing
        for timing in timings
        if timing.group.kind == "engines"
        and timing.case == replace(plain, program="torch", layout=timing.case.layout, stats=stats)
    ]
    return min(found, key=lambda timing: timing.median, default=None)


def cold_start(case: Case, path: Path) -> dict[str, Any]:
    """Runs a case in two fresh processes: the first fills the caches, the second reads them."""
    runs = []
    with tempfile.TemporaryDirectory() as cache:
        settings = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        for _ in range(2):
            began = perf_counter()
            with Worker(case.engine, path, settings=settings) as worker:
                first = worker.ask("prepare", case)
                seconds = perf_counter() - began
                compiled = {"compile_seconds": first["compile_seconds"]}
                runs.append({"seconds": seconds, **compiled, **worker.ask("peak")})
    # One list per figure: the first start and the second.
    return {"case": asdict(case), **{name: [run[name] for run in runs] for name in runs[0]}}


def bars(
    timings: Sequence[Timing], starts: Sequence[dict[str, Any]], roof: float
) -> list[dict[str, Any]]:
    """Returns what decides whether the engine is fast enough: name, value, bar, and its side."""
    rows: list[tuple[str, float, float | None, bool]] = []
    found = ratios(timings)
    for ratio in found:
        case, plain = ratio.above.case, ratio.above.group.cases[0]
        if ratio.above is not faster(timings, plain, case.stats) or case.dtype != "float32":
            continue
        bar = None if case.norm else FASTER[case.stats, case.batch_size]
        name = "with all statistics, PyTorch with hooks / ours"
        if case.stats == "none":
            name = "epoch without statistics, PyTorch / ours"
        norm = ", batch norm" if case.norm else ""
        rows.append((f"{name}, batch {case.batch_size}{norm}", ratio.median, bar, True))
    for ratio in found:
        case, kind = ratio.above.case, ratio.above.group.kind
        if kind == "cadence" and (case.stats, case.every) in OVERHEAD:
            name = f"overhead, {_statistics(case)}, batch {case.batch_size}"
            rows.append((name, ratio.median, OVERHEAD[case.stats, case.every], False))
        if kind == "norm":
            rows.append((f"batch norm / none, batch {case.batch_size}", ratio.median, NORM, False))
    for timing in timings:
        case, group = timing.case, timing.group
        share = timing.share(roof)
        if group.kind == "engines" and case == group.cases[0] and not case.norm and share:
            bar = SHARE if case.batch_size == 512 else None
            rows.append(
                (f"share of matrix-product rate, batch {case.batch_size}", share, bar, True)
            )
    for start in starts:
        if (start["case"]["program"], start["case"]["batch_size"]) == ("convjax", 64):
            for which, seconds, bar in zip(
                ("first", "cached"), start["compile_seconds"], COMPILE, strict=True
            ):
                name = f"compile seconds, {which}, {_statistics(Case(**start['case']))}"
                rows.append((name, seconds, bar, False))
    return [
        {"name": n, "value": v, "bar": b, "side": "at least" if least else "at most"}
        for n, v, b, least in rows
    ]


def measure(
    data: str, data_dir: Path | None, rounds: int, quick: bool, shown: Console
) -> dict[str, Any]:
    """Measures everything, prints each group's table as it is done, and returns the report.

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
        engines = ["jax", "torch"] if has_torch() else ["jax"]
        workers = {
            name: stack.enter_context(Worker(name, path, settings=compiler)) for name in engines
        }
        about = {name: worker.ask("about") for name, worker in workers.items()}
        jax, torch = about["jax"], about.get("torch")
        if torch is None:
            notes.append(NO_TORCH)
        elif torch["accelerator"] != jax["accelerator"]:
            notes.append(f"PyTorch runs on {torch['device']}, ours on {jax['device']}.")
        sizes = BATCH_SIZES[:1] if quick else BATCH_SIZES
        found = workers["jax"].ask(
            "setup", data=data, data_dir=data_dir and str(data_dir), batch_sizes=sizes, quick=quick
        )
        if not found["batch_sizes"]:
            raise BenchError(f"data must hold at least {sizes[0]} images, got {found['examples']}.")
        for group in plan(
            jax["layout"],
            found["batch_sizes"],
            torch=torch is not None,
            bfloat16=jax["accelerator"],
            graphs=torch is not None and torch["accelerator"],
            quick=quick,
        ):
            # Spread over the run, as the machine's speed may change.
            for name, worker in workers.items():
                rates.setdefault(name, []).extend(worker.ask("rate", repeats=3)["flops"])
            images = found["images_per_epoch"][str(group.cases[0].batch_size)]
            done = take_turns(workers, group, rounds, images, notes)
            shown.print(group_table(done))
            timings += done
        ours = Case("convjax", jax["layout"])
        starts = []
        for size in found["batch_sizes"]:
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
        "bars": bars(timings, starts, roof),
        "notes": notes,
    }


def group_table(timings: Sequence[Timing]) -> Table:
    """Returns the table of one group: times, and the ratio to what does as much here."""
    table = Table("program", "layout", "statistics", title=timings[0].group.title)
    for heading in ("compile s", "epoch s", "from", "to", "steps/s", "ratio"):
        table.add_column(heading, justify="right")
    found = {id(ratio.above): ratio for ratio in ratios(timings)}
    for timing in timings:
        case, ratio = timing.case, found.get(id(timing))
        norm = f", {case.norm} norm" if timing.group.kind == "norm" and case.norm else ""
        table.add_row(
            f"{case.program}{norm}",
            case.layout,
            _statistics(case),
            "-" if timing.compile_seconds is None else f"{timing.compile_seconds:.2f}",
            *(f"{f(timing.seconds):.4f}" for f in (median, min, max)),
            f"{timing.steps_per_second:.0f}",
            "1" if ratio is None else f"{ratio.median:.3f} × ours, {_statistics(ratio.below.case)}",
        )
    return table


def start_table(starts: Sequence[dict[str, Any]]) -> Table:
    """Returns the table of cold starts, each with its first and its second."""
    table = Table("program", "batch", "statistics", title="fresh processes: first / second")
    for heading in ("first epoch done after s", "compile s", "peak MB", "device's peak MB"):
        table.add_column(heading, justify="right")
    for start in starts:
        case = Case(**start["case"])
        table.add_row(
            f"{case.program} {case.layout}",
            str(case.batch_size),
            _statistics(case),
            _pair(start["seconds"]),
            _pair(start["compile_seconds"]),
            _pair(start["host_bytes"], 1e-6, 0),
            _pair(start["device_bytes"], 1e-6, 0),
        )
    return table


def bar_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Returns the table of what was measured beside what is wanted."""
    table = Table("figure", title="bars")
    for heading in ("measured", "bar", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        value, bar = row["value"], row["bar"]
        holds = bar is not None and (value >= bar if row["side"] == "at least" else value <= bar)
        sign = "≥" if row["side"] == "at least" else "≤"
        verdict = "" if bar is None else "[green]holds[/]" if holds else "[red]missed[/]"
        wanted = "" if bar is None else f"{sign} {bar:g}"
        table.add_row(row["name"], f"{value:.3f}", wanted, verdict)
    return table


def run_bench(
    data: Annotated[
        str, typer.Option(help="mnist5k (embedded), mnist, cifar10, fashion_mnist, or a folder.")
    ] = "mnist5k",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the IDX files of mnist; default: $CONVJAX_DATA_DIR."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Epochs of each case, taken in turns; medians are shown.")
    ] = 5,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Three steps per epoch, two rounds: decides nothing."),
    ] = False,
    out: Annotated[Path, typer.Option(help="File for all figures.")] = Path("bench.json"),
) -> None:
    """Measures the speed of training beside PyTorch, in turns, and writes bench.json."""
    from convjax.runs import write_json
    from experiments.console import console

    shown = console()
    try:
        if out.is_dir():
            raise ValueError(f"--out must be a file, got the folder {out}.")
        out.parent.mkdir(parents=True, exist_ok=True)  # a mistake shows before the work
        report = measure(data, data_dir, rounds, quick, shown)
        write_json(out, report)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("stopped; nothing was written.", err=True)
        raise typer.Exit(130) from None
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


def _statistics(case: Case) -> str:
    if case.stats == "none":
        return "no statistics"
    return f"{case.stats} every {'step' if case.every == 1 else f'{case.every} steps'}"


def _label(case: Case) -> str:
    return f"{case.program} {case.layout}, {_statistics(case)}"


def _pair(values: Sequence[float | None], unit: float = 1.0, digits: int = 2) -> str:
    return " / ".join("-" if v is None else f"{v * unit:.{digits}f}" for v in values)
