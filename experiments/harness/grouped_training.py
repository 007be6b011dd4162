"""Trainings for comparisons: those that share a program run side by side, each in its folder.

They watch no layer and draw no picture, so that there may be hundreds of them. How many run at once
is `convjax.train._sweep`'s rule: on a CPU one, with the very figures of `Trainer.run`.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from convjax.runs.folder import RunFolder
from convjax.stats.record import Record
from convjax.stats.record_builder import concatenate, from_steps
from convjax.train._sweep import groups, runs_at_once, stacked_tables
from convjax.train.persistence import Progress
from convjax.train.step import StepMetrics
from experiments.harness.session import Session
from experiments.harness.setting import Setting
from experiments.harness.training import Outcome

Pair = tuple[Setting, int]  # a setting and a seed


class GroupedTrainings:
    """The comparisons of a lab; each training is run once and kept."""

    def __init__(self, lab: Session):
        self._lab = lab
        self._outcomes: dict[Pair, Outcome] = {}

    def outcomes(self, settings: Sequence[Setting], seeds: Sequence[int]) -> list[list[Outcome]]:
        """Returns what each setting comes to with each seed, run now unless it was before."""
        wanted = [(setting, seed) for setting in settings for seed in seeds]
        kinds: dict[tuple[Any, ...], list[Pair]] = {}
        for setting, seed in dict.fromkeys(wanted):
            if (setting, seed) not in self._outcomes and not self._found(setting, seed):
                # All that a program, and the steps between its evaluations, depend on.
                kind = setting.structure, setting.batch_size, setting.epochs, setting.scores
                kinds.setdefault(kind, []).append((setting, seed))
        for pairs in kinds.values():
            for group, real in groups(len(pairs), self._at_once(pairs[0][0])):
                self._train([pairs[i] for i in group], real)
        return [[self._outcomes[setting, seed] for seed in seeds] for setting in settings]

    def _found(self, setting: Setting, seed: int) -> bool:
        """Tells whether an earlier run finished this training, and keeps what it came to."""
        path, config = self._folder(setting, seed)
        run = self._lab.folders.finished(path, config, "record.npz")
        if run is not None:
            self._outcomes[setting, seed] = Outcome(setting, seed, run.metrics)
        return run is not None

    def _folder(self, setting: Setting, seed: int) -> tuple[Any, dict[str, Any]]:
        """Returns where a training is kept and what its configuration is."""
        path = self._lab.out / "runs" / "comparisons" / setting.slug / f"seed-{seed}"
        return path, self._lab.run_config(setting, seed)

    def _at_once(self, setting: Setting) -> int:
        trainer, train = self._lab.trainer(setting), self._lab.material(setting).train
        state = trainer.start(self._lab.network(setting, 0))
        return runs_at_once(trainer.step, state, train, setting.batch_size)

    def _train(self, pairs: Sequence[Pair], real: int) -> None:
        """Trains side by side and keeps the first `real` runs; the rest only fill the program."""
        observer, steps = self._lab.observer, self._lab.steps(*pairs[0])
        # The bar is that of the first: all take their steps together.
        observer.training(*pairs[0], steps, watched=False)
        rows, records = self._fit(pairs)
        for (setting, seed), metrics, record in list(zip(pairs, rows, records, strict=True))[:real]:
            if (setting, seed) != pairs[0]:
                observer.training(setting, seed, steps, watched=False)
            with RunFolder(*self._folder(setting, seed)) as folder:
                folder.write_metrics(metrics)
                folder.write_record(record)
            observer.trained(metrics)
            self._outcomes[setting, seed] = Outcome(setting, seed, metrics)

    def _fit(self, pairs: Sequence[Pair]) -> tuple[list[list[dict[str, Any]]], list[Record]]:
        """Returns for each run its metrics, as `convjax.fit` makes them, and record.

        Seconds are the run's share of what all took together.
        """
        lab, first = self._lab, pairs[0][0]
        trainer, material = lab.trainer(first), lab.material(first)
        vmapped = trainer.vmapped_runs
        steps = lab.steps(*pairs[0])
        table = stacked_tables(
            [
                {name: np.asarray(column) for name, column in setting.table(steps).items()}
                for setting, _ in pairs
            ]
        )
        states = vmapped.start([trainer.start(lab.network(*pair)) for pair in pairs])
        progress = [Progress() for _ in pairs]
        records: list[list[Record]] = [[] for _ in pairs]
        done = 0
        for epoch in range(first.epochs):
            of_runs = np.stack([lab.order(*pair, epoch) for pair in pairs], 1)
            for order in np.array_split(of_runs, min(first.scores, len(of_runs))):
                began, compiled = time.perf_counter(), trainer.compile_seconds
                rows = {name: column[done : done + len(order)] for name, column in table.items()}
                states, measures = vmapped.run(
                    states, material.train, order, rows, on_steps=lab.observer.steps
                )
                loss, accuracy = vmapped.scores(states, material.test)
                compile_seconds = trainer.compile_seconds - compiled
                seconds = time.perf_counter() - began - compile_seconds
                done += len(order)
                last = vmapped.scores(states, material.train)[1] if done == steps else None
                for run, so_far in enumerate(progress):
                    record = _record(measures, run)
                    records[run].append(record)
                    so_far.take(record.loss)
                    so_far.seconds += seconds / len(pairs)
                    so_far.compile_seconds += compile_seconds / len(pairs)
                    row = so_far.score(epoch, loss[run], accuracy[run])
                    if last is not None:
                        row["train_accuracy"] = float(last[run])
        metrics = [so_far.metrics for so_far in progress]
        return metrics, [concatenate(pieces) for pieces in records]


def _record(measures: StepMetrics, run: int) -> Record:
    """Returns one run's record of steps at which nothing was watched."""
    loss, rate, momentum = (np.asarray(column)[:, run] for column in measures)
    return from_steps((), (), loss, rate, momentum, np.arange(0), ())
