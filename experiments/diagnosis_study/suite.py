"""The trainings of the diagnosis study, in two parts.

The first part is for setting thresholds; it has four architectures. The second part is only
measured; it has other seeds, and five further architectures. Faults that are a factor also come at
a half and a quarter of their strength: their square root, and the root of that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np

from experiments.diagnosis_study.faults import FAULTS, TrainingSpec
from experiments.diagnosis_study.networks import ARCHITECTURES

HEALTHY = "healthy"
PARTS = ("set", "measured")
STRENGTHS = {"half": 0.5, "quarter": 0.25}  # exponents of the factors, in parts of their own
FIRST_SEED = {"set": 1000, "measured": 5000, "half": 10_000, "quarter": 15_000}
FAULTY_RUNS = {"set": 10, "measured": 22}  # of each fault
HEALTHY_RUNS = {"set": 90, "measured": 210}

# Compiling takes longer than a run, so only these also train with SGD.
WITH_SGD = ("cnn", "cnn-batch", "mlp", "tanh", "linen")

# Options of healthy trainings. A rate of a third or twice the usual is not a fault; the highest
# rate of one-cycle is twice the usual anyway.
HEALTHY_OPTIONS: tuple[dict[str, object], ...] = (
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
    """One training of the study.

    Attributes:
      part: "set" or "measured", or for a weaker fault one of `STRENGTHS`.
      fault: the injected fault, or HEALTHY.
      plan: the specification, with the fault.
    """

    part: str
    fault: str
    plan: TrainingSpec


def plans_of_part(part: str) -> list[TrainingSpec]:
    """Returns a specification for each architecture and optimiser of a part."""
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
      part: "set" or "measured", or one of `STRENGTHS`.
      quick: one training of each fault and two healthy ones, on the smallest network that fits.
    """
    made = list(_weaker(part, quick)) if part in STRENGTHS else list(_faulty(part, quick))
    made += [] if part in STRENGTHS else list(_healthy(part, quick))
    return [
        replace(case, plan=replace(case.plan, seed=FIRST_SEED[part] + i))
        for i, case in enumerate(made)
    ]


def _faulty(part: str, quick: bool) -> Iterator[StudyCase]:
    for number, (name, fault) in enumerate(FAULTS.items()):
        fitting = [plan for plan in plans_of_part(part) if fault.fits(plan)]
        count = 1 if quick else FAULTY_RUNS[part]
        rng = np.random.default_rng([FIRST_SEED[part], number])
        for plan in islice(cycle(_small(fitting, quick)), count):
            yield StudyCase(part, name, fault.inject(plan, rng))


def _weaker(part: str, quick: bool) -> Iterator[StudyCase]:
    """Yields the faulty trainings of the measured part whose fault is a factor, weakened."""
    for case in _faulty(PARTS[1], quick):
        plan, strength = case.plan, STRENGTHS[part]
        # The bias of a sleeping layer is added, everything else multiplied.
        weak = replace(
            plan,
            gain=plan.gain**strength,
            rate=plan.rate**strength,
            sleep=plan.sleep * strength,
        )
        if weak != plan and plan.gain:
            yield StudyCase(part, case.fault, weak)


def _healthy(part: str, quick: bool) -> Iterator[StudyCase]:
    plans = _small(plans_of_part(part), quick)
    # The options are shifted by one in each round, so that every architecture gets all of them.
    count = 2 if quick else HEALTHY_RUNS[part]
    for i in range(count):
        round_, which = divmod(i, len(plans))
        options = HEALTHY_OPTIONS[(which + round_) % len(HEALTHY_OPTIONS)]
        yield StudyCase(part, HEALTHY, replace(plans[which], **options))  # type: ignore[arg-type]


def _small(plans: Sequence[TrainingSpec], quick: bool) -> list[TrainingSpec]:
    if not quick:
        return list(plans)
    small = [plan for plan in plans if plan.architecture in ("mlp", "tanh")]
    return small[:1] or list(plans[:1])
