"""The laboratory of one invocation: data, seeds, and trainings that claims share."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from convjax import models, optim, schedules
from convjax.capture import capture
from convjax.data import Dataset, epoch_order, load, normalization
from convjax.record import Record, concatenate
from convjax.runs import RunFolder
from convjax.summary import summary
from convjax.train import Images, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One epoch of the chapter on the embedded sample is 15 passes: as many updates as on MNIST.
PASSES = {"mnist5k": 15}

# A quick run keeps the form of a training and cuts it to this many steps an epoch.
QUICK_STEPS = 3


@dataclass(frozen=True)
class Setting:
    """One training of the chapter; variants are made with `dataclasses.replace`.

    Attributes:
      network: "digits" (ten classes) or "threes-sevens".
      norm: None or "batch".
      batch_size: images per step.
      epochs: of the chapter; the learning rate's schedule spans them all.
      schedule: "constant" (momentum 0.9) or "one-cycle".
      lr_max: the constant, or the highest, learning rate.
    """

    network: str = "digits"
    norm: str | None = None
    batch_size: int = 64
    epochs: int = 1
    schedule: str = "constant"
    lr_max: float = 0.06

    def table(self, steps: int) -> dict[str, jax.Array]:
        """Returns the learning rate and momentum of each of `steps` steps."""
        chosen = (
            schedules.one_cycle(steps, self.lr_max)
            if self.schedule == "one-cycle"
            else schedules.constant(self.lr_max)
        )
        return chosen.table(steps)

    @property
    def slug(self) -> str:
        """A name for a folder, the same for the same setting."""
        norm = f"-{self.norm}norm" if self.norm else ""
        epochs = f"-{self.epochs}epochs" if self.epochs > 1 else ""
        return f"{self.network}{norm}-{self.schedule}-bs{self.batch_size}-lr{self.lr_max}{epochs}"


@dataclass(frozen=True)
class Training:
    """One training of a setting with one seed.

    Attributes:
      metrics: per epoch: epoch, step, train_loss (smoothed), valid_loss, accuracy, seconds (of
        training and evaluation) and compile_seconds, which are not in them.
      model: the trained network, in evaluation mode.
    """

    setting: Setting
    seed: int
    record: Record
    metrics: list[dict[str, Any]]
    model: Any


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
        self._trainers: dict[tuple[str, str | None], tuple[Trainer, Callable[..., Any]]] = {}
        self._trainings: dict[Setting, list[Training]] = {}

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

    def metric(self, setting: Setting, name: str, *, epoch: int = -1) -> list[float]:
        """Returns one metric of an epoch for every seed."""
        return [training.metrics[epoch][name] for training in self.train(setting)]

    def picture(self, name: str, figure: "Figure") -> None:
        """Saves a figure as plots/NAME.png below `out`."""
        folder = self.out / "plots"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png")

    def _train(self, setting: Setting, seed: int) -> Training:
        dataset, train, test = self._on_device(setting.network)
        trainer, build = self._trainer(setting)
        orders = [self._order(setting, len(train.labels), seed, e) for e in range(setting.epochs)]
        steps = sum(map(len, orders))
        table = setting.table(steps)
        config = {
            "setting": asdict(setting),
            "data": self.data,
            "classes": list(dataset.class_names),
            "seed": seed,
            "layout": self.layout,
            "quick": self.quick,
            "steps": steps,
        }
        if seed == self.seeds[0]:
            shape = (setting.batch_size, *dataset.train.images.shape[1:])
            self.observer.network(str(summary(build(seed), shape)))
        folder = RunFolder(self.out / "runs" / setting.slug / f"seed-{seed}", config)
        self.observer.training(setting, seed, steps)
        state = trainer.start(build(seed))
        records: list[Record] = []
        metrics: list[dict[str, Any]] = []
        done = 0
        for epoch, order in enumerate(orders):
            began, compiled = time.perf_counter(), trainer.compile_seconds
            rows = {name: column[done : done + len(order)] for name, column in table.items()}
            state, record = trainer.run(state, train, order, rows, on_steps=self.observer.steps)
            scores = trainer.evaluate(state, test)
            compile_seconds = trainer.compile_seconds - compiled
            seconds = time.perf_counter() - began - compile_seconds
            done += len(order)
            records.append(record)
            metrics.append(
                {
                    "epoch": epoch,
                    "step": done,
                    # fastai starts its average anew with every epoch.
                    "train_loss": float(record.smoothed_loss()[-1]),
                    "valid_loss": scores.loss,
                    "accuracy": scores.accuracy,
                    "seconds": round(seconds, 3),
                    "compile_seconds": round(compile_seconds, 3),
                }
            )
            folder.add_metrics(metrics[-1])
            folder.write_record(concatenate(records))
            self.observer.epoch(metrics[-1])
        training = Training(setting, seed, concatenate(records), metrics, trainer.model(state))
        if seed == self.seeds[0]:  # one seed's pictures are enough, and they take their time
            self._plots(training, folder)
        return training

    def _plots(self, training: Training, folder: RunFolder) -> None:
        from convjax import images, plots

        record = training.record
        penultimate = [name for name in record.layers if name.endswith("conv")][-2]
        dataset, _, test = self._on_device(training.setting.network)
        trainer, _ = self._trainer(training.setting)
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
        if network not in self._datasets:
            dataset = self.dataset
            if network == "threes-sevens":
                dataset = load(self.data, data_dir=self.data_dir, classes=("3", "7"))
            train, test = Images.put(dataset.train), Images.put(dataset.test)
            self._datasets[network] = (dataset, train, test)
        return self._datasets[network]

    def _trainer(self, setting: Setting) -> tuple[Trainer, Callable[..., Any]]:
        """One compiled program for all settings that differ in rates, schedule and length."""
        key = (setting.network, setting.norm)
        if key not in self._trainers:
            dataset, _, _ = self._on_device(setting.network)
            build = self._network(setting, dataset)
            # The chapter normalises the ten digits; the threes and sevens it divides by 255.
            mean: Any = 0.0
            std: Any = 1.0
            if setting.network == "digits":
                mean, std = normalization(dataset.train.images)
            self._trainers[key] = (Trainer(build(0), optim.adam(), mean=mean, std=std), build)
        return self._trainers[key]

    def _network(self, setting: Setting, dataset: Dataset) -> Callable[[int], nnx.Module]:
        chapters = NETWORKS[setting.network]
        image = dataset.train.images.shape[1:]
        classes = len(dataset.class_names)

        @cache
        def build(seed: int) -> nnx.Module:
            return chapters(
                in_features=image[-1],
                classes=classes,
                norm=setting.norm,
                layout=self.layout,
                rngs=nnx.Rngs(seed),
            )

        probe = nnx.clone(build(0))
        probe.eval()  # so that batch norm only reads
        logits = jax.eval_shape(probe, jax.ShapeDtypeStruct((1, *image), np.float32)).shape[-1]
        if logits != classes:
            raise ValueError(
                f"images must be of at most 32×32 pixels for the chapter's networks, whose five "
                f"strides of 2 bring them to 1×1; got {image[0]}×{image[1]} from {self.data!r}."
            )
        return build


NETWORKS = {"digits": models.digits_net, "threes-sevens": models.threes_sevens_net}

BASELINE = Setting()
THREE_OR_SEVEN = Setting(network="threes-sevens", epochs=2, schedule="one-cycle", lr_max=0.01)
BATCH_512 = replace(BASELINE, batch_size=512)
ONE_CYCLE = replace(BATCH_512, schedule="one-cycle")
BATCH_NORM = replace(ONE_CYCLE, norm="batch")
LONGER = replace(BATCH_NORM, epochs=5, lr_max=0.1)
