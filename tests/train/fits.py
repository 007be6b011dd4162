"""A small training with checkpoints, for tests in this process and in others that are killed.

As a program (`python -m tests.train.fits FOLDER`) it runs or resumes the training to its end and
prints a line after each piece of steps.
"""

import sys
from dataclasses import fields
from pathlib import Path

import jax
import numpy as np

from convjax.optim.optimizers import adam
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.folder import RunFolder
from convjax.runs.persistence import Keeping
from convjax.stats.record import Record
from convjax.stats.watch import Watch
from convjax.train._fit import Callback, FitResult, fit
from convjax.train.plan import Plan
from convjax.train.trainer import Trainer
from tests import trainings

EPOCHS, PER_EPOCH, PIECE, ROWS = 16, 20, 7, 16
CONFIG = {"seed": 0}


def plan(epochs=EPOCHS):
    """Returns a plan with two evaluations per epoch, each after pieces of seven and three steps."""
    return Plan(
        epochs,
        lambda epoch: trainings.batches(PER_EPOCH, seed=epoch),
        trainings.table(epochs * PER_EPOCH),
        evaluations=2,
        piece=PIECE,
    )


def trainer():
    model = trainings.conv_net()
    watch = Watch.everything()
    return Trainer(model, adam(), mean=trainings.MEAN, std=trainings.STD, watch=watch)


def run(trainer, folder=None, *, resume=False, stop=lambda: False, callback=None, **options):
    """Trains, in a folder if one is given, and returns the result."""
    train, test = trainings.split(), trainings.split(11, seed=5)
    common = {"rows": ROWS, "stop": stop, "callback": callback, **options}
    if folder is None:
        return fit(trainer, trainings.conv_net(), train, test, plan(), **common)
    with (
        RunFolder(folder, CONFIG, resume=resume) as kept,
        Checkpoints(Path(folder) / "checkpoints") as checkpoints,
    ):
        keeping = Keeping(kept, checkpoints, seconds=0.0)
        return fit(trainer, trainings.conv_net(), train, test, plan(), keeping=keeping, **common)


def assert_same(actual: FitResult, expected: FitResult) -> None:
    """Compares parameters, optimiser, batch statistics, record and metrics bit for bit."""
    for left, right in zip(
        jax.tree.leaves(actual.state), jax.tree.leaves(expected.state), strict=True
    ):
        np.testing.assert_array_equal(left, right)
    assert_same_records(actual.record, expected.record)
    assert untimed(actual.metrics) == untimed(expected.metrics)


def assert_same_records(actual: Record, expected: Record) -> None:
    for field in fields(Record):
        left, right = getattr(actual, field.name), getattr(expected, field.name)
        if field.name == "parameters" and left is not None:
            for inner in fields(left):
                np.testing.assert_array_equal(
                    getattr(left, inner.name), getattr(right, inner.name), inner.name
                )
        else:
            np.testing.assert_equal(left, right, field.name)


def untimed(metrics):
    """Returns metrics without their seconds, which differ between runs."""
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in metrics]


class PrintingCallback(Callback):
    def on_restore(self, steps, metrics):
        print("restored", steps, flush=True)

    def on_record(self, record, first):
        print("recorded", first + record.steps, flush=True)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    run(trainer(), out, resume=(out / "config.json").exists(), callback=PrintingCallback())
    print("done", flush=True)
