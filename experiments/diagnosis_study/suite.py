"""The set of trainings on which the diagnosis is measured, in two parts.

By the first part thresholds are set: four architectures and seeds of its own. The second is only
measured: other seeds, and five architectures more that the first has not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np

from experiments.diagnosis_study.faults import FAULTS, TrainingSpec
from experiments.diagnosis_study.networks import ARCHITECTURES

HEALTHY = "healthy"
PARTS = ("set", "measured")
FIRST_SEED = {"set": 1000, "measured": 5000}
FAULTY_RUNS = {"set": 10, "measured": 22}  # of each fault
HEALTHY_RUNS = {"set": 90, "measured": 210}

# Compiling takes longer than a run: SGD is for these alone.
WITH_SGD = ("cnn", "cnn-batch", "mlp", "tanh", "linen")

# What a healthy training may look like. A rate a third of or twice the usual is no fault; one-cycle
# has twice the rate at its highest by itself.
ODD: tuple[dict[str, object], ...] = (
    {},
    {"schedule": "one-cycle"},
    {"batch_size": 512, "steps": 120},
    {"schedule": "long-warm-up"},
    {"batch_size": 16, "rate": 0.5},
    {"rate": 0.3},
    {"rate": 2.0},
    {"batch_size": 256, "schedule": "one-cycle", "steps": 150},
)


@dataclass(frozen=True)
class StudyCase:
    """A plan, what is wrong with it (a fault, or HEALTHY), and the part that it belongs to."""

    part: str
    fault: str
    plan: TrainingSpec


def kinds(part: str) -> list[TrainingSpec]:
    """Returns the architectures and optimisers of a part, as plans."""
    return [
        TrainingSpec(name, 0, optimizer)
        for optimizer in ("adam", "sgd")
        for name, architecture in ARCHITECTURES.items()
        if architecture.nonlinearity != "sigmoid"
        and (part == "measured" or not architecture.new)
        and (optimizer == "adam" or name in WITH_SGD)
    ]


def cases(part: str, *, quick: bool = False) -> list[StudyCase]:
    """Returns the trainings of a part.

    Args:
      quick: one of each fault and two healthy ones, on the smallest network that it fits.
    """
    made = list(_faulty(part, quick)) + list(_healthy(part, quick))
    return [
        replace(case, plan=replace(case.plan, seed=FIRST_SEED[part] + i))
        for i, case in enumerate(made)
    ]


def _faulty(part: str, quick: bool) -> Iterator[StudyCase]:
    for number, (name, fault) in enumerate(FAULTS.items()):
        fitting = [plan for plan in kinds(part) if fault.fits(plan)]
        count = 1 if quick else FAULTY_RUNS[part]
        rng = np.random.default_rng([FIRST_SEED[part], number])
        for plan in islice(cycle(_small(fitting, quick)), count):
            yield StudyCase(part, name, fault.plant(plan, rng))


def _healthy(part: str, quick: bool) -> Iterator[StudyCase]:
    plans = _small(kinds(part), quick)
    # The looks are shifted by one at each turn, so that every plan gets every look.
    count = 2 if quick else HEALTHY_RUNS[part]
    for i in range(count):
        turn, which = divmod(i, len(plans))
        odd = ODD[(which + turn) % len(ODD)]
        yield StudyCase(part, HEALTHY, replace(plans[which], **odd))  # type: ignore[arg-type]


def _small(plans: Sequence[TrainingSpec], quick: bool) -> list[TrainingSpec]:
    if not quick:
        return list(plans)
    small = [plan for plan in plans if plan.architecture in ("mlp", "tanh")]
    return small[:1] or list(plans[:1])
