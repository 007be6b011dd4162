"""The laboratory of one invocation: data, seeds, and trainings that claims share."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from convjax.data import Dataset, epoch_order, load, normalization
from convjax.record import Record, concatenate
from convjax.runs import Run, RunFolder, check_config, load_run
from convjax.step import State
from convjax.summary import summary
from convjax.train import Images, Trainer
from convjax.watch import Watch
from convjax.weights import load_weights
from experiments import pictures
from experiments.observer import Observer
from experiments.setting import Setting
from experiments.training import Material, Outcome, Training, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One epoch of the chapter on the embedded sample is 15 passes: as many updates as on MNIST.
PASSES = {"mnist5k": 15}

# A quick run keeps the form of a training and cuts it to this many steps an epoch.
QUICK_STEPS = 3


class Lab:
    """Data, seeds and options of one invocation; a training is run once and kept.

    Args:
      data: a name or folder, as for `convjax.data.load`.
      data_dir: where IDX files lie.
      seeds: of the initial parameters and of the order of the images.
      out: folder for results; runs and pictures go below it.
      layout: of the networks.
      quick: cut every training to a few steps.
      resume: take the trainings that are finished below `out` as they are.
      spreadsheet: where the chapter's conv-example.xlsx lies.
      observer: hears of the progress.
    """

    def __init__(
        self,
        data: str = "mnist5k",
        *,
        data_dir: Path | None = None,
        seeds: int = 1,
        out: Path,
        layout: str = "auto",
        quick: bool = False,
        resume: bool = False,
        spreadsheet: Path | None = None,
        observer: Observer | None = None,
    ):
        if seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}.")
        self.data, self.data_dir = data, data_dir
        self.seeds = tuple(range(seeds))
        self.out, self.layout, self.quick = out, layout, quick
        self.resume, self.spreadsheet = resume, spreadsheet
        self.observer = observer or Observer()
        # What trainings of an earlier, stopped run took, compiling included.
        self.earlier_seconds = 0.0
        self._datasets: dict[str, tuple[Dataset, Images, Images]] = {}
        self._trainers: dict[tuple[Setting, bool], Trainer] = {}
        self._networks: dict[tuple[Setting, int], nnx.Module] = {}
        self._trainings: dict[Setting, list[Training]] = {}
        self._outcomes: dict[tuple[Setting, int], Outcome] = {}

    @property
    def config(self) -> dict[str, Any]:
        """What figures depend on besides data and seeds."""
        return {"layout": self.layout, "quick": self.quick}

    @cached_property
    def dataset(self) -> Dataset:
        """The whole data set.

        Raises:
          convjax.data.DataError: if it cannot be loaded.
        """
        return load(self.data, data_dir=self.data_dir)

    def has_threes_and_sevens(self) -> bool:
        """Tells whether the data set has the classes "3" and "7"."""
        return {"3", "7"} <= set(self.dataset.class_names)

    def train(self, setting: Setting) -> list[Training]:
        """Returns one training of the setting per seed, run now unless it was before."""
        if setting not in self._trainings:
            self._trainings[setting] = [self._train(setting, seed) for seed in self.seeds]
        return self._trainings[setting]

    def outcomes(self, setting: Setting, seeds: Sequence[int] | None = None) -> list[Outcome]:
        """Returns what trainings of a setting come to, run now unless they were before.

        They watch no layer, draw no picture and leave a small folder below runs/comparisons, so
        that there may be hundreds of them.
        """
        seeds = self.seeds if seeds is None else seeds
        for seed in seeds:
            if (setting, seed) not in self._outcomes:
                self._outcomes[setting, seed] = self._outcome(setting, seed)
        return [self._outcomes[setting, seed] for seed in seeds]

    def metric(self, setting: Setting, name: str, *, epoch: int = -1) -> list[float]:
        """Returns one metric of an epoch for every seed."""
        return [training.metrics[epoch][name] for training in self.train(setting)]

    def images(self, setting: Setting) -> Images:
        """Returns the training images of a setting, on the device."""
        return self._on_device(setting.network)[1]

    def picture(self, name: str, figure: "Figure") -> None:
        """Saves a figure as plots/NAME.png below `out`."""
        folder = self.out / "plots"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png")

    def _train(self, setting: Setting, seed: int) -> Training:
        config = self._config(setting, seed)
        path = self.out / "runs" / setting.slug / f"seed-{seed}"
        if run := self._finished(path, config, "model.npz"):
            model = load_weights(path / "model.npz", self.network(setting, seed))
            model.eval()
            return Training(setting, seed, run.metrics, run.record, model)
        first = seed == self.seeds[0]
        if first:
            self.observer.network(str(summary(self.network(setting, seed), self._shape(setting))))
        folder = RunFolder(path, config)
        metrics: list[dict[str, Any]] = []

        def on_score(row: dict[str, Any], records: Sequence[Record]) -> None:
            metrics.append(row)
            folder.add_metrics(row)
            folder.write_record(concatenate(records))

        state, record = self._fit(setting, seed, on_score, watched=True)
        trainer = self.trainer(setting, watched=True)
        training = Training(setting, seed, metrics, record, trainer.model(state))
        if first:  # one seed's pictures are enough, and they take their time
            pictures.draw(training, trainer, self._on_device(setting.network)[0], folder)
        folder.write_model(training.model)
        self.observer.trained(metrics)
        return training

    def _outcome(self, setting: Setting, seed: int) -> Outcome:
        config = self._config(setting, seed)
        path = self.out / "runs" / "comparisons" / setting.slug / f"seed-{seed}"
        if run := self._finished(path, config, "record.npz"):
            return Outcome(setting, seed, run.metrics)
        metrics: list[dict[str, Any]] = []
        state, record = self._fit(setting, seed, lambda row, _: metrics.append(row), watched=False)
        _, train, _ = self._on_device(setting.network)
        scores = self.trainer(setting, watched=False).evaluate(state, train)
        metrics[-1]["train_accuracy"] = scores.accuracy
        folder = RunFolder(path, config)
        for row in metrics:
            folder.add_metrics(row)
        folder.write_record(record)
        self.observer.trained(metrics)
        return Outcome(setting, seed, metrics)

    def _fit(
        self,
        setting: Setting,
        seed: int,
        on_score: Callable[[dict[str, Any], Sequence[Record]], None],
        *,
        watched: bool,
    ) -> tuple[State, Record]:
        _, train, test = self._on_device(setting.network)
        orders = self._orders(setting, seed)
        steps = sum(map(len, orders))
        self.observer.training(setting, seed, steps, watched=watched)
        trainer, network = self.trainer(setting, watched), self.network(setting, seed)
        material = Material(trainer, network, train, test, orders, setting.table(steps))
        return fit(material, setting, self.observer, on_score)

    def _finished(self, path: Path, config: dict[str, Any], last: str) -> Run | None:
        """Returns what a training left in its folder, if that has the file that is written last.

        What an unfinished one left is removed.
        """
        if not (self.resume and (path / "config.json").exists()):
            return None
        check_config(path, config)
        if (path / last).exists():
            run = load_run(path)
            self.earlier_seconds += sum(
                row["seconds"] + row["compile_seconds"] for row in run.metrics
            )
            return run
        shutil.rmtree(path)
        return None

    def _config(self, setting: Setting, seed: int) -> dict[str, Any]:
        return {
            "setting": asdict(setting),
            "data": self.data,
            "classes": list(self._on_device(setting.network)[0].class_names),
            "seed": seed,
            **self.config,
            "steps": sum(map(len, self._orders(setting, seed))),
        }

    def _shape(self, setting: Setting) -> tuple[int, ...]:
        dataset, _, _ = self._on_device(setting.network)
        return (setting.batch_size, *dataset.train.images.shape[1:])

    def _orders(self, setting: Setting, seed: int) -> list[Any]:
        """Returns the batches of each epoch."""
        examples = len(self._on_device(setting.network)[1].labels)
        return [self._order(setting, examples, seed, epoch) for epoch in range(setting.epochs)]

    def _order(self, setting: Setting, examples: int, seed: int, epoch: int) -> Any:
        passes = PASSES.get(self.data, 1)
        # A small folder trains with the images it has; no rule decides there.
        batch_size = min(setting.batch_size, examples)
        order = np.concatenate(
            [
                epoch_order(examples, batch_size, seed=seed, epoch=epoch * passes + i)
                for i in range(passes)
            ]
        )
        return order[:QUICK_STEPS] if self.quick else order

    def _on_device(self, network: str) -> tuple[Dataset, Images, Images]:
        kind = "digits" if network == "digits" else "threes-sevens"
        if kind not in self._datasets:
            dataset = self.dataset
            if kind == "threes-sevens":
                dataset = load(self.data, data_dir=self.data_dir, classes=("3", "7"))
            train, test = Images.put(dataset.train), Images.put(dataset.test)
            self._datasets[kind] = (dataset, train, test)
        return self._datasets[kind]

    def trainer(self, setting: Setting, watched: bool = False) -> Trainer:
        """One compiled program for all settings that differ in rates, schedule and length."""
        key = (setting.structure, watched)
        if key not in self._trainers:
            dataset, _, _ = self._on_device(setting.network)
            # The chapter normalises the ten digits; the threes and sevens it divides by 255.
            mean: Any = 0.0
            std: Any = 1.0
            if setting.network == "digits":
                mean, std = normalization(dataset.train.images)
            self._trainers[key] = Trainer(
                self.network(setting, 0),
                setting.optimizer,
                mean=mean,
                std=std,
                loss=setting.loss,
                watch=Watch() if watched else None,
            )
        return self._trainers[key]

    def network(self, setting: Setting, seed: int) -> nnx.Module:
        """Returns the network of a setting with the initial parameters of a seed.

        Raises:
          ValueError: if the images are too large for it.
        """
        dataset, _, _ = self._on_device(setting.network)
        image, classes = dataset.train.images.shape[1:], len(dataset.class_names)
        key = (setting.structure, seed)
        if key not in self._networks:
            network = setting.build(image, classes, self.layout, seed)
            probe = nnx.clone(network)
            probe.eval()  # so that batch norm only reads
            images = jax.ShapeDtypeStruct((1, *image), np.float32)
            logits = jax.eval_shape(probe, images).shape[-1]
            if logits != (1 if setting.network == "linear" else classes):
                raise ValueError(
                    f"images must be of at most 32×32 pixels for the chapter's networks, whose "
                    f"five strides of 2 bring them to 1×1; got {image[0]}×{image[1]} from "
                    f"{self.data!r}."
                )
            self._networks[key] = network
        return self._networks[key]
