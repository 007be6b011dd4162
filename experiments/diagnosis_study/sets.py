"""The three sets of trainings of the study, and the diagnosis of each of them."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax

from convjax.diagnosis import diagnose
from experiments.diagnosis_study.healthy.zoo import HEALTHY
from experiments.diagnosis_study.reported import REPORTED
from experiments.diagnosis_study.user_loops import Trained

PARTS = ("set", "measured")


@dataclass(frozen=True)
class Said:
    """What the diagnosis says of one training.

    Attributes:
      of: "reported", "control" or "healthy".
      part: "set", for setting thresholds, or "measured".
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
    if of == "healthy":
        for i, made in enumerate(HEALTHY):
            yield made.name, PARTS[i % 2], made.train, "", made.healthy, made.options
        return
    counts: dict[str, int] = {}
    for fault in REPORTED:
        # Every second case of each cause is measured.
        counts[fault.cause] = number = counts.get(fault.cause, 0) + 1
        faulty = of == "reported"

        def train(seed: int, fault: Any = fault, faulty: bool = faulty) -> Trained:
            return fault.train(faulty, seed)

        truth = fault.cause if faulty else ""
        yield fault.name, PARTS[number % 2], train, truth, fault.healthy, fault.options


def said_of(of: str, *, part: str | None = None, every: int = 1) -> Iterator[dict[str, Any]]:
    """Yields the row of each training of a set, as plain values.

    Args:
      of: "reported", "control" or "healthy".
      part: one of `PARTS`; both by default.
      every: takes each n-th training.
    """
    for i, (name, own, train, truth, bar, options) in enumerate(trainings(of)):
        if part not in (None, own) or i % every:
            continue
        record, reached = train(i)
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
