"""The cases of the benchmark in groups, their measurement in turns, and the ratios of their times.

The cases of a group are compared. In each round, every case of the group trains one epoch from the
same initial parameters. A ratio is the median of the ratios within a round, so that a machine that
slows down slows both sides.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from experiments.bench.case import BenchCase
from experiments.bench.worker import RefusalError, Worker

# Between turns, because idle OpenMP threads spin for some milliseconds.
PAUSE_SECONDS = 0.02

# Watched alone and at every step; `experiments.bench.jax_engine.WATCHED` defines each.
QUANTITIES = (
    "scalars",
    "scalars and units",
    "all",
    "inputs",
    "gradients",
    "updates",
    "gradients and updates with histograms",
    "evaluation",
    "everything",
)


@dataclass(frozen=True)
class Group:
    """Cases that take turns; the first is our epoch without statistics, the base of the ratios."""

    kind: str  # "engines", "cadence", "quantities" or "norm"
    cases: tuple[BenchCase, ...]

    @property
    def title(self) -> str:
        """The common properties of the cases, as text."""
        case = self.cases[0]
        norm = "" if self.kind == "norm" else f", {case.norm or 'no'} norm"
        return f"{self.kind}, batch {case.batch_size}{norm}, {case.dtype}"


@dataclass
class Timing:
    """The times of one case within a group: an epoch of `images` images per round."""

    group: Group
    case: BenchCase
    images: int
    compile_seconds: float | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median over the rounds of the seconds of an epoch."""
        return median(self.seconds)

    @property
    def steps_per_second(self) -> float:
        """The steps per second of the median epoch."""
        return self.images / self.case.batch_size / self.median

    def share(self, roof: float) -> float | None:
        """Returns images per second as a share of `roof`, a bound for float32; else None."""
        return self.images / self.median / roof if self.case.dtype == "float32" else None


@dataclass(frozen=True)
class Ratio:
    """The time of one case relative to another of its group."""

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


def case_groups(
    layout: str,
    batch_sizes: Sequence[int],
    *,
    devices: int,
    torch: bool,
    bfloat16: bool,
    graphs: bool,
    quick: bool,
) -> list[Group]:
    """Returns the groups of cases for this machine.

    Args:
      layout: our default layout on this machine.
      batch_sizes: those that the data set is large enough for.
      devices: number of devices that JAX shows; with several, our cases also train on all of them.
      torch: whether PyTorch is installed.
      bfloat16: whether to include cases in bfloat16.
      graphs: whether PyTorch runs on CUDA, and can capture CUDA graphs.
      quick: whether to leave out other layouts, batch norm beside PyTorch, and slow compilations.
    """
    ours = BenchCase("convjax", layout)
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
                if devices > 1 and size % devices == 0:
                    cases += [replace(case, devices=devices) for case in cases[:2]]
                if not quick:
                    cases += [replace(case, layout=x) for x in layouts for case in cases[:2]]
                cases += [
                    replace(plain, program=program, layout=order, stats=stats)
                    for program, stats in (kinds if torch else [])
                    for order in (formats[:1] if quick else formats)
                ]
                groups.append(Group("engines", tuple(cases)))
    if 64 in batch_sizes:
        cadence = [("none", 1), ("scalars", 1), ("all", 1), ("all", 8), ("all", 16), ("all", 256)]
        cadence = [("none", 1), ("all", 8)] if quick else cadence
        cases = [replace(ours, stats=stats, every=every) for stats, every in cadence]
        groups.append(Group("cadence", tuple(cases)))
        kept = ["none", *(["everything"] if quick else QUANTITIES)]
        groups.append(Group("quantities", tuple(replace(ours, stats=stats) for stats in kept)))
    for size in batch_sizes:
        plain = replace(ours, batch_size=size)
        groups.append(Group("norm", (plain, replace(plain, norm="batch"))))
    return groups


def take_turns(
    workers: Mapping[str, Worker], group: Group, rounds: int, images: int, notes: list[str]
) -> list[Timing]:
    """Prepares the cases of a group, then trains one epoch of each per round.

    Args:
      workers: the child processes by engine.
      group: the cases.
      rounds: number of epochs of each case.
      images: number of images of an epoch.
      notes: receives a note for each case that cannot be compiled.

    Returns:
      The times of the cases.

    Raises:
      RefusalError: if a case fails that needs no special compiler.
    """
    timings = []
    for case in group.cases:
        try:
            reply = workers[case.engine].ask("prepare", case)
        except RefusalError as error:
            # torch.compile does not work on every machine: only a note.
            if case.program in ("convjax", "torch"):
                raise
            notes.append(f"{label(case)} left out in {group.title}: {str(error)[:300]}")
            continue
        timings.append(Timing(group, case, images, reply["compile_seconds"]))
    for turn in range(rounds):
        first = turn % len(
            timings
        )  # the order changes, so that no case always follows the same one
        for timing in timings[first:] + timings[:first]:
            sleep(PAUSE_SECONDS)
            timing.seconds.append(workers[timing.case.engine].ask("run", timing.case)["seconds"])
    return timings


def ratios(timings: Sequence[Timing]) -> list[Ratio]:
    """Compares our cases with our first one, and PyTorch's with ours of the same statistics."""
    found = []
    for above in timings:
        plain = above.group.cases[0]
        if above.case != plain:
            stats = above.case.stats if above.case.engine == "torch" else plain.stats
            wanted = (above.group, replace(plain, stats=stats))
            found += [Ratio(above, t) for t in timings if (t.group, t.case) == wanted]
    return found


def faster(timings: Sequence[Timing], plain: BenchCase, stats: str) -> Timing | None:
    """Returns PyTorch's eager case comparable to `plain`, in its faster memory format; or None."""
    found = [
        timing
        for timing in timings
        if timing.group.kind == "engines"
        and timing.case == replace(plain, program="torch", layout=timing.case.layout, stats=stats)
    ]
    return min(found, key=lambda timing: timing.median, default=None)


def cold_start(case: BenchCase, path: Path) -> dict[str, Any]:
    """Runs a case in two new processes: the first fills the caches, the second reads them.

    Args:
      case: the case.
      path: of the data, see `experiments.bench.jax_engine.setup`.

    Returns:
      The case, and for each figure a list of two values, of the first and the second process.
    """
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
    return {"case": asdict(case), **{name: [run[name] for run in runs] for name in runs[0]}}


def statistics(case: BenchCase) -> str:
    """Returns the statistics of a case and their cadence as text."""
    if case.stats == "none":
        return "no statistics"
    return f"{case.stats} every {'step' if case.every == 1 else f'{case.every} steps'}"


def label(case: BenchCase) -> str:
    """Returns the name of a case within its group."""
    return f"{program(case)} {case.layout}, {statistics(case)}"


def program(case: BenchCase) -> str:
    """Returns the program of a case, with the number of devices if there are several."""
    return case.program + (f" on {case.devices} devices" if case.devices > 1 else "")
