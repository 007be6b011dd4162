"""The trainings of one invocation, which claims share: each is run once and kept."""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING

from convjax.analysis._summary import summary
from convjax.chapter import training_plots
from convjax.chapter.finished_runs import explain_damage
from convjax.chapter.session import Session
from convjax.chapter.setting import Setting
from convjax.chapter.training import Outcome, Training
from convjax.io.atomic import save_figure
from convjax.nn.weights import load_weights
from convjax.runs.folder import RunFolder
from convjax.runs.persistence import Keeping
from convjax.stats.watch import Watch
from convjax.train._fit import fit
from experiments.harness.grouped_training import GroupedTrainings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Lab(Session):
    """A session that trains; its arguments are those of `Session`."""

    @cached_property
    def pictures(self) -> list[str]:
        """The names of the pictures that were saved so far."""
        return []

    @cached_property
    def _trainings(self) -> dict[tuple[Setting, int], Training]:
        """The watched trainings so far, by setting and seed."""
        return {}

    @cached_property
    def _comparisons(self) -> GroupedTrainings:
        """The trainings for comparisons so far."""
        return GroupedTrainings(self)

    @cached_property
    def _summaries(self) -> set[str]:
        """The summaries that the observer has received."""
        return set()

    @property
    def earlier_seconds(self) -> float:
        """The time of trainings that a stopped run finished after its last claim."""
        return self.folders.earlier_seconds

    def with_seeds(self, seeds: int) -> "Lab":
        """Returns a lab with seeds 0 to `seeds` − 1 that shares data, programs and trainings.

        Its list of pictures is empty.
        """
        # Made now, if they were not, so that the copy has the same ones.
        _ = self.config, self._trainings, self._comparisons, self._summaries
        lab = copy(self)
        lab.pictures, lab.seeds = [], tuple(range(seeds))
        return lab

    def train(self, setting: Setting) -> list[Training]:
        """Returns one watched training of the setting per seed, each run at the first call."""
        for seed in self.seeds:
            if (setting, seed) not in self._trainings:
                self._trainings[setting, seed] = self._training(setting, seed)
        return [self._trainings[setting, seed] for seed in self.seeds]

    def sweep(
        self, settings: Sequence[Setting], seeds: Sequence[int] | None = None
    ) -> list[list[Outcome]]:
        """Returns the outcomes of each setting with each seed, run at the first call.

        These trainings watch no layer, draw no picture and write a small folder below
        runs/comparisons. Trainings that share a program run side by side where that is faster, see
        `experiments.harness.grouped_training`.

        Args:
          settings: one list of outcomes is returned for each.
          seeds: the session's seeds by default.
        """
        return self._comparisons.outcomes(settings, self.seeds if seeds is None else seeds)

    def outcomes(self, setting: Setting, seeds: Sequence[int] | None = None) -> list[Outcome]:
        """Returns the outcomes of one setting with each seed, see `sweep`."""
        return self.sweep([setting], seeds)[0]

    def metric(self, setting: Setting, name: str, *, evaluation: int = -1) -> list[float]:
        """Returns one metric of one evaluation for every seed.

        Args:
          setting: of watched trainings.
          name: of the metric.
          evaluation: index of the evaluation; most settings have one per epoch.
        """
        return [training.metrics[evaluation][name] for training in self.train(setting)]

    def scores(self, setting: Setting) -> dict[str, list[float]]:
        """Returns the accuracy and the losses at the end, for every seed."""
        names = ("accuracy", "valid_loss", "train_loss")
        return {name: self.metric(setting, name) for name in names}

    def picture(self, name: str, figure: "Figure") -> None:
        """Saves a figure as plots/NAME.png below `out`."""
        self.pictures.append(name)
        save_figure(figure, self.out / "plots" / f"{name}.png")

    def fit(
        self,
        setting: Setting,
        seed: int,
        folder: RunFolder | None = None,
        watch: Watch | None = Watch(),  # noqa: B008  # frozen
    ) -> Training:
        """Trains once, whether or not the training was run before.

        Args:
          setting: of the training.
          seed: of the initial parameters and the order of the images.
          folder: written after each evaluation.
          watch: the layers whose statistics are recorded, which takes time.
        """
        steps = self.steps(setting, seed)
        self.observer.training(setting, seed, steps, watched=True)
        trainer, data = self.trainer(setting, watch), self.device_dataset(setting)
        fitted = fit(
            trainer,
            self.network(setting, seed),
            data.train,
            data.test,
            self.plan(setting, seed),
            rows=steps,  # one per step: the chapter's trainings are short enough
            keeping=None if folder is None else Keeping(folder),
            stop_at_non_finite=False,  # some claims are about how a training fails
            callback=self.observer,
        )
        self.observer.trained(fitted.metrics)
        model = trainer.model(fitted.state)
        return Training(setting, seed, fitted.metrics, fitted.record, model)

    def _training(self, setting: Setting, seed: int) -> Training:
        """Returns a watched training from its folder, or runs it."""
        path = self.out / "runs" / setting.slug / f"seed-{seed}"
        config = self.run_config(setting, seed)
        if run := self.folders.finished(path, config, "model.npz"):
            with explain_damage(path):
                model = load_weights(path / "model.npz", self.network(setting, seed))
            model.eval()
            return Training(setting, seed, run.metrics, run.record, model)
        first = seed == self.seeds[0]
        if first:
            self._report_network(setting, seed)
        with RunFolder(path, config) as folder:
            training = self.fit(setting, seed, folder)
            if first:  # the pictures of one seed are enough, and they take time
                trainer, dataset = self.trainer(setting, Watch()), self.dataset_of(setting)
                for name, figure in training_plots.of_training(training, trainer, dataset):
                    folder.add_plot(name, figure)
            folder.write_model(training.model)
        return training

    def _report_network(self, setting: Setting, seed: int) -> None:
        """Passes the network's summary to the observer, once for settings that share it."""
        shape = (setting.batch_size, *self.dataset_of(setting).train.images.shape[1:])
        text = str(summary(self.network(setting, seed), shape))
        if text not in self._summaries:
            self.observer.network(text)
        self._summaries.add(text)
