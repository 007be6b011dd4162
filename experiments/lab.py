"""The laboratory of one invocation: data, seeds, and trainings that claims share."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from convjax.capture import capture
from convjax.data import Dataset, epoch_order, load, normalization
from convjax.record import Record, concatenate
from convjax.runs import RunFolder
from convjax.summary import summary
from convjax.train import Images, Trainer
from convjax.watch import Watch
from experiments.setting import Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One epoch of the chapter on the embedded sample is 15 passes: as many updates as on MNIST.
PASSES = {"mnist5k": 15}

# A quick run keeps the form of a training and cuts it to this many steps an epoch.
QUICK_STEPS = 3


@dataclass(frozen=True)
class Training:
    """One training of a setting with one seed.

    Attributes:
      metrics: per evaluation, of which an epoch has one unless the setting says otherwise: epoch,
        step, train_loss (smoothed), valid_loss, accuracy, seconds (of training and evaluation) and
        compile_seconds, which are not in them.
      model: the trained network, in evaluation mode.
    """

    setting: Setting
    seed: int
    record: Record
    metrics: list[dict[str, Any]]
    model: Any


@dataclass(frozen=True)
class Outcome:
    """What one of many trainings came to, for comparisons.

    Attributes:
      metrics: as of a `Training`.
      train_accuracy: on the training images, at the end.
    """

    setting: Setting
    seed: int
    metrics: list[dict[str, Any]]
    train_accuracy: float

    @property
    def accuracy(self) -> float:
        """On the test images, at the end."""
        return float(self.metrics[-1]["accuracy"])


class Observer:
    """What a lab tells while it works; this one keeps quiet."""

    def network(self, summary: str) -> None:
        """A network is about to be trained, with the first of its seeds."""

    def training(self, setting: Setting, seed: int, steps: int) -> None:
        """A training of `steps` steps begins."""

    def steps(self, done: int) -> None:
        """`done` more steps have been recorded."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch has been scored."""


class Lab:
    """Data, seeds and options of one invocation; a training is run once and kept.

    Args:
      data: a name or folder, as for `convjax.data.load`.
      data_dir: where IDX files lie.
      seeds: of the initial parameters and of the order of the images.
      out: folder for results; runs and pictures go below it.
      layout: of the networks.
      quick: cut every training to a few steps.
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
        spreadsheet: Path | None = None,
        observer: Observer | None = None,
    ):
        if seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}.")
        self.data, self.data_dir = data, data_dir
        self.seeds = tuple(range(seeds))
        self.out, self.layout, self.quick = out, layout, quick
        self.spreadsheet = spreadsheet
        self.observer = observer or Observer()
        self._datasets: dict[str, tuple[Dataset, Images, Images]] = {}
        self._trainers: dict[tuple[Setting, bool], Trainer] = {}
        self._networks: dict[tuple[Setting, int], nnx.Module] = {}
        self._trainings: dict[Setting, list[Training]] = {}
        self._outcomes: dict[tuple[Setting, int], Outcome] = {}

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
        dataset, _, _ = self._on_device(setting.network)
        if seed == self.seeds[0]:
            shape = (setting.batch_size, *dataset.train.images.shape[1:])
            self.observer.network(str(summary(self.network(setting, seed), shape)))
        folder, state, record, metrics = self._run(setting, seed, Path("runs"), watched=True)
        trainer = self.trainer(setting, watched=True)
        training = Training(setting, seed, record, metrics, trainer.model(state))
        if seed == self.seeds[0]:  # one seed's pictures are enough, and they take their time
            self._plots(training, folder)
        return training

    def _outcome(self, setting: Setting, seed: int) -> Outcome:
        _, train, _ = self._on_device(setting.network)
        below = Path("runs") / "comparisons"
        _, state, _, metrics = self._run(setting, seed, below, watched=False)
        scores = self.trainer(setting, watched=False).evaluate(state, train)
        return Outcome(setting, seed, metrics, scores.accuracy)

    def _folder(self, setting: Setting, seed: int, steps: int, below: Path) -> RunFolder:
        config = {
            "setting": asdict(setting),
            "data": self.data,
            "classes": list(self._on_device(setting.network)[0].class_names),
            "seed": seed,
            "layout": self.layout,
            "quick": self.quick,
            "steps": steps,
        }
        return RunFolder(self.out / below / setting.slug / f"seed-{seed}", config)

    def _run(
        self, setting: Setting, seed: int, below: Path, *, watched: bool
    ) -> tuple[RunFolder, Any, Record, list[dict[str, Any]]]:
        """Trains, and writes metrics and record as they come into a folder below `below`.

        Returns:
          (folder, last state, record, metrics).
        """
        _, train, test = self._on_device(setting.network)
        trainer = self.trainer(setting, watched)
        orders = self._orders(setting, seed)
        steps = sum(map(len, orders))
        table = setting.table(steps)
        folder = self._folder(setting, seed, steps, below)
        self.observer.training(setting, seed, steps)
        state = trainer.start(self.network(setting, seed))
        records: list[Record] = []
        metrics: list[dict[str, Any]] = []
        done = 0
        for epoch, whole in enumerate(orders):
            of_epoch: list[Record] = []
            for order in np.array_split(whole, min(setting.scores, len(whole))):
                began, compiled = time.perf_counter(), trainer.compile_seconds
                rows = {name: column[done : done + len(order)] for name, column in table.items()}
                state, record = trainer.run(state, train, order, rows, on_steps=self.observer.steps)
                scores = trainer.evaluate(state, test)
                compile_seconds = trainer.compile_seconds - compiled
                seconds = time.perf_counter() - began - compile_seconds
                done += len(order)
                of_epoch.append(record)
                metrics.append(
                    {
                        "epoch": epoch,
                        "step": done,
                        # fastai starts its average anew with every epoch.
                        "train_loss": float(concatenate(of_epoch).smoothed_loss()[-1]),
                        "valid_loss": scores.loss,
                        "accuracy": scores.accuracy,
                        "seconds": round(seconds, 3),
                        "compile_seconds": round(compile_seconds, 3),
                    }
                )
                folder.add_metrics(metrics[-1])
                folder.write_record(concatenate([*records, *of_epoch]))
                self.observer.epoch(metrics[-1])
            records += of_epoch
        return folder, state, concatenate(records), metrics

    def _plots(self, training: Training, folder: RunFolder) -> None:
        from convjax import images, plots

        record = training.record
        penultimate = [name for name in record.layers if name.endswith("conv")][-2]
        dataset, _, test = self._on_device(training.setting.network)
        trainer = self.trainer(training.setting, watched=True)
        # As one program: each operation by itself would be compiled for this one use.
        first_maps = jax.jit(lambda model, x: capture(model, x)[1][record.layers[0]])
        maps = np.asarray(first_maps(training.model, trainer.step.normalize(test.images[:1])))
        sample, layout = dataset.test.images[:9], training.model.layout
        pictures = {
            "batch": images.show_batch(sample, dataset.test.labels[:9], dataset.class_names),
            "kernels": images.show_kernels(training.model.blocks[0].conv.kernel, layout),
            "feature-maps": images.show_feature_maps(maps, layout),
        }
        for name, figure in pictures.items():
            figure.savefig(folder.plot_path(name))
        plots.plot_loss(record, training.metrics).savefig(folder.plot_path("loss"))
        plots.plot_sched(record).savefig(folder.plot_path("schedule"))
        for name in (record.layers[0], penultimate):
            plots.plot_layer_stats(record, name).savefig(folder.plot_path(f"stats-{name}"))
        plots.color_dim(record, penultimate).savefig(folder.plot_path(f"color-dim-{penultimate}"))

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
