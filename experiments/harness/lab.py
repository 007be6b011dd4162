"""The trainings of one invocation, which claims share: each is run once and kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convjax.analysis._summary import summary
from convjax.io.atomic import save_figure
from convjax.nn.weights import load_weights
from convjax.runs.folder import RunFolder
from convjax.runs.persistence import Keeping
from convjax.stats.watch import Watch
from convjax.train._fit import fit
from experiments.harness import training_plots
from experiments.harness.finished_runs import damage_explained
from experiments.harness.grouped_training import GroupedTrainings
from experiments.harness.session import Session
from experiments.harness.setting import Setting
from experiments.harness.training import Outcome, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Lab(Session):
    """A session that trains; its arguments are those of `Session`."""

    def __init__(self, data: str = "mnist5k", **options: Any):
        super().__init__(data, **options)
        self._sweeps = GroupedTrainings(self)
        self._told: set[str] = set()
        self._trainings: dict[Setting, list[Training]] = {}

    def train(self, setting: Setting) -> list[Training]:
        """Returns one training of the setting per seed, run now unless it was before."""
        if setting not in self._trainings:
            self._trainings[setting] = [self._training(setting, seed) for seed in self.seeds]
        return self._trainings[setting]

    @property
    def earlier_seconds(self) -> float:
        """What those trainings took that a stopped run finished after its last claim."""
        return self.folders.earlier_seconds

    def outcomes(self, setting: Setting, seeds: Sequence[int] | None = None) -> list[Outcome]:
        """Returns what trainings of a setting come to with each seed, as `sweep` of one."""
        return self.sweep([setting], seeds)[0]

    def sweep(
        self, settings: Sequence[Setting], seeds: Sequence[int] | None = None
    ) -> list[list[Outcome]]:
        """Returns what trainings come to, of each setting with each seed, run now unless they were
        before.

        They watch no layer, draw no picture and leave a small folder below runs/comparisons. Those
        that share a program run side by side where that is faster, see `experiments.harness.grouped_training`.
        """
        return self._sweeps.outcomes(settings, self.seeds if seeds is None else seeds)

    def metric(self, setting: Setting, name: str, *, evaluation: int = -1) -> list[float]:
        """Returns one metric of an evaluation, of which most settings have one per epoch, for
        every seed."""
        return [training.metrics[evaluation][name] for training in self.train(setting)]

    def scores(self, setting: Setting) -> dict[str, list[float]]:
        """Returns the accuracy and the losses at the end, for every seed."""
        names = ("accuracy", "valid_loss", "train_loss")
        return {name: self.metric(setting, name) for name in names}

    def picture(self, name: str, figure: "Figure") -> None:
        """Saves a figure as plots/NAME.png below `out`."""
        save_figure(figure, self.out / "plots" / f"{name}.png")

    def _training(self, setting: Setting, seed: int) -> Training:
        path = self.out / "runs" / setting.slug / f"seed-{seed}"
        config = self.run_config(setting, seed)
        if run := self.folders.finished(path, config, "model.npz"):
            with damage_explained(path):
                model = load_weights(path / "model.npz", self.network(setting, seed))
            model.eval()
            return Training(setting, seed, run.metrics, run.record, model)
        dataset = self.dataset_of(setting)
        first = seed == self.seeds[0]
        if first:
            shape = (setting.batch_size, *dataset.train.images.shape[1:])
            told = str(summary(self.network(setting, seed), shape))
            if told not in self._told:  # settings may differ in the schedule alone
                self.observer.network(told)
            self._told.add(told)
        with RunFolder(path, config) as folder:
            training = self.fit(setting, seed, folder)
            if first:  # one seed's pictures are enough, and they take their time
                trainer = self.trainer(setting, Watch())
                for name, figure in training_plots.of_training(training, trainer, dataset).items():
                    folder.add_plot(name, figure)
            folder.write_model(training.model)
        return training

    def fit(
        self,
        setting: Setting,
        seed: int,
        folder: RunFolder | None = None,
        watch: Watch | None = Watch(),  # noqa: B008  # frozen
    ) -> Training:
        """Trains once, now.

        Args:
          folder: written after each evaluation.
          watch: of which layers the record has statistics, which take time.
        """
        steps = self.steps(setting, seed)
        self.observer.training(setting, seed, steps, watched=True)
        trainer, material = self.trainer(setting, watch), self.material(setting)
        fitted = fit(
            trainer,
            self.network(setting, seed),
            material.train,
            material.test,
            self.plan(setting, seed),
            rows=steps,  # a row for each: trainings of the chapter are short enough
            keeping=None if folder is None else Keeping(folder),
            stop_at_non_finite=False,  # how it fails is what some claims are about
            listener=self.observer,
        )
        self.observer.trained(fitted.metrics)
        model = trainer.model(fitted.state)
        return Training(setting, seed, fitted.metrics, fitted.record, model)
