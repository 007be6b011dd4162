"""`python -m experiments diagnosis-sets`: the diagnosis of reported faults and healthy trainings.

The faults were reported in public, each with its source (`experiments.diagnosis_study.reported`);
each has a control without the fault. The healthy trainings are of many architectures, tasks and
optimisers (`experiments.diagnosis_study.healthy`). Thresholds were set on the part "set" alone.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress

from convjax.diagnosis import diagnose
from convjax.runs.environment import environment
from convjax.stats.record import Record
from convjax.terminal.command import measure_to_file
from experiments.diagnosis_study.kept import kept_training
from experiments.diagnosis_study.sagemaker_rules import fired_rules
from experiments.diagnosis_study.suite import PARTS
from experiments.diagnosis_study.user_loops import Trained


@dataclass(frozen=True)
class Said:
    """What the diagnosis says of one training.

    Attributes:
      of: "reported", "control" or "healthy".
      part: "set", for setting thresholds, "measured", or "further" and "last", two collections that
        others made afterwards.
      name: of the training.
      truth: the cause, "" for a control or a healthy training.
      findings: the causes that are named, in their order.
      consequences: what may follow from them.
      reached: by the training; None if it is not a number.
      bar: that shows it healthy.
      rules: the names of the rules of SageMaker Debugger that fire.
      curve: what the loss alone shows, see `loss_reading`.
      source: the address of the report, "" for a healthy training.
    """

    of: str
    part: str
    name: str
    truth: str
    findings: tuple[str, ...]
    consequences: tuple[str, ...]
    reached: float | None
    bar: float
    rules: tuple[str, ...]
    curve: str
    source: str


class SetTraining(NamedTuple):
    """A training of a set; the fields are those of `Said`, and `train` takes a seed."""

    name: str
    part: str
    train: Callable[[int], Trained]
    truth: str
    bar: float
    options: Mapping[str, Any]
    source: str


def trainings(of: str) -> Iterator[SetTraining]:
    """Yields the trainings of a set.

    Args:
      of: "reported", "control" or "healthy".
    """
    # Here, because they import the libraries of all loops.
    from experiments.diagnosis_study.healthy.zoo import HEALTHY
    from experiments.diagnosis_study.reported import FURTHER, LAST, REPORTED

    if of == "healthy":
        for i, made in enumerate(HEALTHY):
            part = PARTS[i % 2]
            yield SetTraining(made.name, part, made.train, "", made.healthy, made.options, "")
        return
    counts: dict[str, int] = {}
    collections = ((None, REPORTED), ("further", FURTHER), ("last", LAST))
    for collection, fault in ((name, fault) for name, faults in collections for fault in faults):
        # Every second case of each cause is measured.
        counts[fault.cause] = number = counts.get(fault.cause, 0) + 1
        part = collection or PARTS[number % 2]
        faulty = of == "reported"

        def train(seed: int, fault: Any = fault, faulty: bool = faulty) -> Trained:
            return fault.train(faulty, seed)

        truth = fault.cause if faulty else ""
        yield SetTraining(
            fault.name, part, train, truth, fault.healthy, fault.options, fault.source
        )


def said_of(of: str, position: int, records: Path | None = None) -> dict[str, Any]:
    """Returns the row of one training, as plain values.

    Args:
      of: "reported", "control" or "healthy".
      position: among `trainings(of)`.
      records: a folder; a training whose record is there is not run again.
    """
    from experiments.diagnosis_study.healthy.zoo import FIRST_SEED

    training = list(trainings(of))[position]
    # The reported faults show with the first seed; some do not with others.
    seed = FIRST_SEED + position if of == "healthy" else 0
    key = f"{of}, {training.part}, {training.name}"
    record, reached = kept_training(partial(training.train, seed), key, records)
    found = diagnose(record, **training.options)
    counted = record.parameters is not None and len(record.parameters.grad_hist) > 0
    return asdict(
        Said(
            of,
            training.part,
            training.name,
            training.truth,
            tuple(finding.symptom for finding in found.findings),
            tuple(finding.symptom for finding in found.consequences),
            None if math.isnan(reached) else float(reached),
            training.bar,
            tuple(sorted(fired_rules(record, "relu"))) if counted else (),
            loss_reading(record),
            training.source,
        )
    )


def loss_reading(record: Record) -> str:
    """Returns what the loss alone shows: "not finite", "rises", "does not fall" or "falls".

    It rises by a quarter or more, and falls by a tenth or more, of its mean over ten steps.
    """
    loss = record.loss
    if not np.isfinite(loss).all():
        return "not finite"
    first, last = loss[:10].mean(), loss[-10:].mean()
    rise = (last - first) / max(abs(first), 1e-12)
    return "rises" if rise > 0.25 else "does not fall" if rise > -0.1 else "falls"


def _prepare() -> None:
    """Prepares a process: faults warn, as of lost precision, and programs are kept."""
    from convjax.terminal.compilation_cache import use_compilation_cache

    warnings.simplefilter("ignore")
    use_compilation_cache()


# A process has room for about a hundred programs.
TRAININGS_OF_PROCESS = 20


def run_diagnosis_sets(quick: bool, processes: int, records: Path | None, out: Path) -> None:
    """Measures the diagnosis on reported faults and healthy trainings; writes diagnosis_sets.json.

    A quick run takes every fortieth training.
    """
    from experiments.diagnosis_study.sets_report import sets_tables

    def measure(shown: Console) -> dict[str, Any]:
        wanted = [
            (of, position)
            for of in ("reported", "control", "healthy")
            for position in range(0, len(list(trainings(of))), 40 if quick else 1)
        ]
        rows = []
        with Progress(console=shown, transient=True) as progress:
            task = progress.add_task("trainings", total=len(wanted))
            # New pools replace processes that are full: one pool with max_tasks_per_child may wait
            # forever (https://github.com/python/cpython/issues/115634, Python 3.11 to 3.14).
            share = TRAININGS_OF_PROCESS * processes
            for first in range(0, len(wanted), share):
                # JAX does not survive a fork.
                pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_prepare)
                some = zip(*wanted[first : first + share], strict=True)
                with pool:
                    for row in pool.map(said_of, *some, repeat(records)):
                        rows.append(row)
                        progress.advance(task)
        return {"environment": environment(), "diagnosed": rows}

    measure_to_file(out, measure, lambda report: sets_tables(report["diagnosed"]))
