"""The healthy trainings: combinations of architectures, tasks, optimisers and styles."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

from experiments.diagnosis_study.healthy.architectures import (
    ARCHITECTURES,
    MAP,
    TOKENS,
    VECTOR,
    ZooArchitecture,
)
from experiments.diagnosis_study.healthy.healthy_training import HealthyTraining
from experiments.diagnosis_study.healthy.layer_maker import Style
from experiments.diagnosis_study.healthy.loops import train
from experiments.diagnosis_study.healthy.optimisers import OPTIMISERS, Optimiser
from experiments.diagnosis_study.healthy.tasks import TASKS, Task
from experiments.diagnosis_study.user_loops import Trained

FIRST_SEED = 20_000

STYLES: tuple[Style, ...] = (
    Style(),
    Style("zero head", zero_head=True),
    Style("momentum 0.99", momentum=0.99, longer=2),
    Style(),
    Style("dropout 0.5", dropout=0.5),
    Style("bfloat16", bfloat16=True, longer=2),
    Style(),
)

# Pairs of trainings of each architecture, by what it maps to.
PAIRS = {VECTOR: 6, MAP: 4, TOKENS: 3}


def fits(architecture: ZooArchitecture, optimiser: Optimiser) -> bool:
    """Returns whether the zoo trains an architecture so."""
    nnx_only = optimiser.average or optimiser.head_only
    return architecture.library == "nnx" or not nnx_only


def style_for(architecture: ZooArchitecture, style: Style) -> Style:
    """Returns a style, or the plain one if the architecture does not have what it changes."""
    odd = style.zero_head or style.dropout or style.bfloat16
    if odd and architecture.library != "nnx":
        return Style()
    if style.bfloat16 and (architecture.recurrent or architecture.kind == TOKENS):
        return Style()
    # Through many norms, statistics that lag leave the evaluation of a MobileNet to chance.
    steady = architecture.batch_norm and architecture.name != "mobilenet"
    if style.momentum == 0.99 and not steady:
        return Style()
    return style


def training(
    architecture: ZooArchitecture, task: Task, optimiser: Optimiser, style: Style
) -> HealthyTraining:
    """Returns a training of the zoo."""
    name = f"{architecture.name} with {style.name}" if style.name else architecture.name
    options: dict[str, Any] = {} if task.goal.classes else {"classes": 0}
    run = partial(train, architecture, task, optimiser, style)
    return HealthyTraining(name, task.name, optimiser.name, run, task.healthy, options)


def pairs() -> Iterator[tuple[ZooArchitecture, Task, tuple[Optimiser, Optimiser], Style]]:
    """Yields pairs of trainings that differ in the optimiser alone."""
    numbers: dict[str, Any] = {kind: count() for kind in PAIRS}
    turn, style_turn = 0, count()
    for architecture in ARCHITECTURES:
        tasks = [task for task in TASKS if task.kind == architecture.kind]
        optimisers = [o for o in OPTIMISERS if fits(architecture, o)]
        for _ in range(PAIRS[architecture.kind]):
            task = tasks[next(numbers[architecture.kind]) % len(tasks)]
            both = (optimisers[turn % len(optimisers)], optimisers[(turn + 1) % len(optimisers)])
            turn += 2
            yield architecture, task, both, style_for(architecture, _next(STYLES, style_turn))


def _next(values: Sequence[Style], turn: Iterator[int]) -> Style:
    return values[next(turn) % len(values)]


# Trainings at even positions are for setting thresholds, those at odd positions are only measured.
HEALTHY: tuple[HealthyTraining, ...] = tuple(
    training(architecture, task, optimiser, style)
    for architecture, task, both, style in pairs()
    for optimiser in both
)


def run(position: int) -> Trained:
    """Runs the training at a position of `HEALTHY`, whose seed follows from the position."""
    return HEALTHY[position].train(FIRST_SEED + position)
