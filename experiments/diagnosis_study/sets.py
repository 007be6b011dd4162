"""`python -m experiments diagnosis-sets`: the diagnosis of reported faults and healthy trainings.

The faults were reported in public, each with its source (`experiments.diagnosis_study.reported`);
each has a control without the fault. The healthy trainings are of many architectures, tasks and
optimisers (`experiments.diagnosis_study.healthy`). Thresholds were set on the part "set" alone.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import Progress

from convjax.diagnosis import diagnose
from convjax.runs.environment import environment
from experiments.diagnosis_study.suite import PARTS
from experiments.diagnosis_study.user_loops import Trained
from experiments.terminal.command import measure_to_file
from experiments.terminal.options import OutFile, Quick


@dataclass(frozen=True)
class Said:
    """What the diagnosis says of one training.

    Attributes:
      of: "reported", "control" or "healthy".
      part: "set", for setting thresholds, "measured", or "further", measured after all else.
      name: of the training.
      truth: the cause, "" for a control or a healthy training.
      findings: the causes that are named, in their order.
      consequences: what may follow from them.
      reached: by the training.
      bar: that shows it healthy.
    """

    of: str
    part: str
    name: str
    truth: str
    findings: tuple[str, ...]
    consequences: tuple[str, ...]
    reached: float
    bar: float


def trainings(of: str) -> Iterator[tuple[str, str, Callable[[int], Trained], str, float, Any]]:
    """Yields (name, part, training, truth, bar, options of diagnose) of a set.

    Args:
      of: "reported", "control" or "healthy".
    """
    # Here, because they import the libraries of all loops.
    from experiments.diagnosis_study.healthy.zoo import HEALTHY
    from experiments.diagnosis_study.reported import FURTHER, REPORTED

    if of == "healthy":
        for i, made in enumerate(HEALTHY):
            yield made.name, PARTS[i % 2], made.train, "", made.healthy, made.options
        return
    counts: dict[str, int] = {}
    for fault in (*REPORTED, *FURTHER):
        # Every second case of each cause is measured.
        counts[fault.cause] = number = counts.get(fault.cause, 0) + 1
        part = "further" if fault in FURTHER else PARTS[number % 2]
        faulty = of == "reported"

        def train(seed: int, fault: Any = fault, faulty: bool = faulty) -> Trained:
            return fault.train(faulty, seed)

        truth = fault.cause if faulty else ""
        yield fault.name, part, train, truth, fault.healthy, fault.options


def said_of(of: str, *, part: str | None = None, every: int = 1) -> Iterator[dict[str, Any]]:
    """Yields the row of each training of a set, as plain values.

    Args:
      of: "reported", "control" or "healthy".
      part: such as "set"; all by default.
      every: takes each n-th training.
    """
    from experiments.diagnosis_study.healthy.zoo import FIRST_SEED

    for i, (name, own, train, truth, bar, options) in enumerate(trainings(of)):
        if part not in (None, own) or i % every:
            continue
        # The reported faults show with the first seed; some do not with others.
        record, reached = train(FIRST_SEED + i if of == "healthy" else 0)
        found = diagnose(record, **options)
        yield asdict(
            Said(
                of,
                own,
                name,
                truth,
                tuple(finding.symptom for finding in found.findings),
                tuple(finding.symptom for finding in found.consequences),
                float(reached),
                bar,
            )
        )
        # A process has room for about a hundred programs.
        jax.clear_caches()
        gc.collect()


def run_diagnosis_sets(quick: Quick = False, out: OutFile = Path("diagnosis_sets.json")) -> None:
    """Measures the diagnosis on reported faults and healthy trainings; writes diagnosis_sets.json.

    A quick run takes every fortieth training.
    """
    from experiments.diagnosis_study.sets_report import sets_tables
    from experiments.harness.compilation_cache import use_compilation_cache

    def measure(shown: Console) -> dict[str, Any]:
        use_compilation_cache()
        rows = []
        with warnings.catch_warnings(), Progress(console=shown, transient=True) as progress:
            warnings.simplefilter("ignore")  # of what the faults do, such as lost precision
            task = progress.add_task("trainings", total=None)
            for of in ("reported", "control", "healthy"):
                for row in said_of(of, every=40 if quick else 1):
                    rows.append(row)
                    progress.advance(task)
        return {"environment": environment(), "diagnosed": rows}

    measure_to_file(out, measure, lambda report: sets_tables(report["diagnosed"]))
