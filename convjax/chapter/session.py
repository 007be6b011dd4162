"""The session of one invocation: data, seeds, options, and the networks and programs for them."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax._checks import check_whole
from convjax._names import PIECE
from convjax.chapter.datasets import DeviceDataset, SettingDatasets
from convjax.chapter.finished_runs import FinishedRuns
from convjax.chapter.observer import Observer
from convjax.chapter.setting import Setting
from convjax.data import Dataset, epoch_order, load
from convjax.data.catalog import DATASET_NAMES
from convjax.data.paths import expanded
from convjax.stats.watch import Watch
from convjax.train.losses import accuracy
from convjax.train.plan import Plan
from convjax.train.trainer import Trainer

# One epoch of the chapter on the embedded sample is 15 passes: as many updates as on MNIST.
PASSES = {"mnist5k": 15}

# A quick run cuts each epoch of a training to this many steps.
QUICK_STEPS = 3


class Session:
    """The data, seeds and options of one invocation, and the networks and programs for them.

    Networks and programs are made when they are first needed, and kept.

    Args:
      data: a name or folder, as for `convjax.data.load`; results contain only its name.
      data_dir: folder with the files of a data set, as for `load`.
      seeds: number of seeds, from 0; a seed decides the initial parameters and the order of the
        images.
      out: folder for results; runs and pictures are written below it.
      layout: of the networks.
      quick: whether to cut every training to a few steps.
      resume: whether to reuse the trainings that are finished below `out`.
      spreadsheet: path of the chapter's conv-example.xlsx.
      full: whether the claims on residual networks train at the size of their papers.
      targets: chips for which the claim on layouts compiles, see `convjax.compare_layouts`.
      observer: is notified of the progress.

    Raises:
      ValueError: if there is no seed.
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
        full: bool = False,
        targets: Sequence[str] = (),
        observer: Observer | None = None,
    ):
        check_whole("seeds", seeds, 1)
        self.source, self.data_dir = data, data_dir
        # Results must not contain a path of this machine. The slash marks a folder.
        named = data in DATASET_NAMES
        self.data = data if named else f"{expanded(data).resolve().name}/"
        self.seeds = tuple(range(seeds))
        self.out, self.layout, self.quick = out, layout, quick
        self.resume, self.spreadsheet = resume, spreadsheet
        self.full, self.targets = full, tuple(targets)
        self.observer = observer or Observer()
        self.folders = FinishedRuns(out, resume)
        self._datasets = SettingDatasets(data, data_dir, lambda: self.dataset)
        self._trainers: dict[Any, Trainer] = {}
        self._networks: dict[tuple[Setting, int], nnx.Module] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """The whole data set.

        Raises:
          ValueError: if it cannot be loaded (DataError), or has only one class.
        """
        dataset = load(self.source, data_dir=self.data_dir)
        if len(dataset.class_names) < 2:
            raise ValueError(
                f"--data must have at least two classes, got {', '.join(dataset.class_names)} "
                f"alone in {self.source!r}. Add a folder of images for each class."
            )
        return dataset

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the figures depend on besides the data's name and the seeds."""
        digest = hashlib.sha256()
        for split in (self.dataset.train, self.dataset.test):
            for array in (split.images, split.labels):
                digest.update(array.tobytes())
        full = {"full": True} if self.full else {}  # omitted, so that earlier runs can be resumed
        options = {"layout": self.layout, "quick": self.quick, **full}
        return {**options, "sha256": digest.hexdigest()[:16]}

    def has_threes_and_sevens(self) -> bool:
        """Whether the data set has the classes "3" and "7"."""
        return {"3", "7"} <= set(self.dataset.class_names)

    def dataset_of(self, setting: Setting) -> Dataset:
        """Returns the data set of a setting."""
        return self._datasets.dataset(setting)

    def normalization(self, setting: Setting) -> tuple[list[float], list[float]]:
        """Returns mean and std per channel of a setting's images, on the scale p/255."""
        return self._datasets.normalization(setting)

    def device_dataset(self, setting: Setting) -> DeviceDataset:
        """Returns the data set of a setting and its images on the device."""
        return self._datasets.on_device(setting)

    def trainer(
        self,
        setting: Setting,
        watch: Watch | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> Trainer:
        """Returns the trainer of a setting.

        Settings that differ only in rates, schedule, batch size and length share one.

        Args:
          setting: whose network is trained.
          watch: the layers whose statistics are recorded.
          devices: that share each batch; one by default.
        """
        key = (setting.structure, watch, devices and tuple(devices))
        if key not in self._trainers:
            mean, std = self.normalization(setting)
            self._trainers[key] = Trainer(
                self.network(setting, 0),
                setting.optimizer,
                mean=mean,
                std=std,
                loss=setting.loss,
                metrics=[accuracy],  # also of a single output, which answers 3 or 7
                watch=watch,
                devices=devices,
                augment=setting.augment,
            )
        return self._trainers[key]

    def network(self, setting: Setting, seed: int) -> nnx.Module:
        """Returns the network of a setting with the initial parameters of a seed.

        Raises:
          ValueError: if the images are too large for it.
        """
        dataset = self.dataset_of(setting)
        image, classes = dataset.train.images.shape[1:], len(dataset.class_names)
        key = (setting.structure, seed)
        if key not in self._networks:
            network = setting.build(image, classes, self.layout, seed)
            probe = nnx.clone(network)
            probe.eval()  # so that batch norm leaves its running statistics unchanged
            images = jax.ShapeDtypeStruct((1, *image), np.float32)
            logits = jax.eval_shape(probe, images).shape[-1]
            if logits != (1 if setting.network == "linear" else classes):
                raise ValueError(
                    f"images must be of at most 32×32 pixels for the chapter's networks, whose "
                    f"five strides of 2 reduce them to 1×1, got {image[0]}×{image[1]} from "
                    f"{self.source!r}. Make them smaller."
                )
            self._networks[key] = network
        return self._networks[key]

    def plan(self, setting: Setting, seed: int, piece: int = PIECE) -> Plan:
        """Returns the batches and rates of a training.

        Args:
          setting: of the training.
          seed: of the order of the images.
          piece: number of steps after which the training can be stopped.
        """
        return Plan(
            setting.epochs,
            lambda epoch: self.order(setting, seed, epoch),
            setting.table(self.steps(setting, seed)),
            setting.scores,
            piece,
        )

    def run_config(self, setting: Setting, seed: int) -> dict[str, Any]:
        """Returns everything that the figures of a training depend on."""
        mean, std = self.normalization(setting)
        return {
            "setting": setting.config,
            "mean": mean,
            "std": std,
            "data": self.data,
            "classes": list(self.dataset_of(setting).class_names),
            "seed": seed,
            **self.config,
            "steps": self.steps(setting, seed),
        }

    def batches(self, setting: Setting, seed: int, epoch: int) -> npt.NDArray[np.integer[Any]]:
        """Returns the image indices of each batch of an epoch of the chapter, (steps, batch)."""
        examples = len(self.dataset_of(setting).train.labels)
        passes = setting.passes * PASSES.get(self.data, 1)
        # A small folder trains with the images that it has; no rule applies to it.
        batch_size = min(setting.batch_size, examples)
        return np.concatenate(
            [
                epoch_order(examples, batch_size, seed=seed, epoch=epoch * passes + i)
                for i in range(passes)
            ]
        )

    def order(self, setting: Setting, seed: int, epoch: int) -> npt.NDArray[np.integer[Any]]:
        """Returns the batches of an epoch of a training, (steps, batch); a quick run has few."""
        return self.batches(setting, seed, epoch)[: QUICK_STEPS if self.quick else None]

    def steps(self, setting: Setting, seed: int) -> int:
        """Returns the number of steps of a training."""
        return setting.epochs * len(self.order(setting, seed, 0))
