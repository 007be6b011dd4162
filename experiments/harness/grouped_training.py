"""Trainings for comparisons: those that share a program run in one sweep, each in its own folder.

They watch no layer and draw no picture, so that there may be hundreds of them. `convjax.sweep`
decides how many run at once: on a CPU one, with exactly the figures of `Trainer.run`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convjax.chapter.session import Session
from convjax.chapter.setting import Setting
from convjax.chapter.training import Outcome
from convjax.runs.folder import RunFolder
from convjax.train._sweep import SweepRun, sweep


class GroupedTrainings:
    """The trainings for comparisons of a session; each is run once and kept in memory.

    Args:
      session: its data, seeds, programs and folder for results.
    """

    def __init__(self, session: Session):
        self._session = session
        self._outcomes: dict[tuple[Setting, int], Outcome] = {}

    def outcomes(self, settings: Sequence[Setting], seeds: Sequence[int]) -> list[list[Outcome]]:
        """Returns the outcomes of each setting with each seed, and trains those that are missing.

        A training that an earlier run finished is read from its folder.
        """
        sweeps: dict[tuple[Any, ...], list[Setting]] = {}
        for setting in dict.fromkeys(settings):
            missing = tuple(seed for seed in dict.fromkeys(seeds) if self._missing(setting, seed))
            if missing:
                # What a program, the batches and the steps between evaluations depend on.
                evaluated = setting.epochs, setting.passes, setting.scores
                shared = setting.structure, setting.batch_size, *evaluated
                sweeps.setdefault((missing, *shared), []).append(setting)
        for (missing, *_), group in sweeps.items():
            self._sweep(group, missing)
        return [[self._outcomes[setting, seed] for seed in seeds] for setting in settings]

    def _missing(self, setting: Setting, seed: int) -> bool:
        """Returns whether a training has no outcome yet, in memory or in its folder."""
        if (setting, seed) in self._outcomes:
            return False
        run = self._session.folders.finished(*self._folder(setting, seed), "record.npz")
        if run is not None:
            self._outcomes[setting, seed] = Outcome(
                setting, seed, run.metrics, loss=run.record.loss
            )
        return run is None

    def _folder(self, setting: Setting, seed: int) -> tuple[Path, dict[str, Any]]:
        """Returns the folder and the configuration of a training."""
        path = self._session.out / "runs" / "comparisons" / setting.slug / f"seed-{seed}"
        return path, self._session.run_config(setting, seed)

    def _sweep(self, settings: Sequence[Setting], seeds: Sequence[int]) -> None:
        """Trains settings that share a program with each seed."""
        session, first = self._session, settings[0]
        observer, data = session.observer, session.device_dataset(first)
        epochs = range(first.epochs)
        orders = [
            np.concatenate([session.order(first, seed, epoch) for epoch in epochs])
            for seed in seeds
        ]
        steps = len(orders[0])
        # In the order in which the sweep finishes them.
        upcoming = iter([(setting, seed) for setting in settings for seed in seeds])

        def begin_next() -> None:
            for setting, seed in upcoming:
                observer.training(setting, seed, steps, watched=False)
                return

        def save(run: SweepRun) -> None:
            setting, seed = settings[run.setting], seeds[run.seed]
            with RunFolder(*self._folder(setting, seed)) as folder:
                folder.write_metrics(run.metrics)
                folder.write_record(run.record)
            observer.trained(run.metrics)
            found = Outcome(setting, seed, run.metrics, loss=run.record.loss)
            self._outcomes[setting, seed] = found
            begin_next()

        begin_next()
        sweep(
            session.trainer(first),
            [session.network(first, seed) for seed in seeds],
            data.train,
            orders,
            [setting.table(steps) for setting in settings],
            test=data.test,
            epochs=first.epochs,
            evaluations=first.scores,
            score_training=True,
            seeds=seeds,
            on_steps=observer.on_steps,
            on_run=save,
        )
