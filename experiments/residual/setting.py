"""The settings of trainings of residual networks: in a small form for a CPU, and in full."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax._checks import check_whole
from convjax.chapter.setting import Setting
from convjax.data import Dataset
from convjax.data.dataset import Split
from convjax.nn.residual import ResNet, cifar_resnet
from convjax.optim import optimizers
from convjax.optim.optimizers import Optimizer
from convjax.train.augmentation import ImageFunction, RandomFlip, RandomShift
from experiments.harness.lab import Lab
from experiments.residual.ghost_batch_norm import use_ghost_batch_norm

# As in the paper on residual networks, section 4.2.
WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class ResidualSetting(Setting):
    """One training of the network of He et al. for small images, with SGD.

    The rate follows one-cycle with a constant momentum: it rises for a quarter of the steps and
    then falls as a cosine.

    Attributes:
      depth: number of layers, 6n + 2.
      widths: channels of the three stages.
      shortcut: as for `convjax.nn.BasicBlock`; None makes the plain network.
      zero_init: whether the last scale of each block begins at 0, else at 1.
      group: number of images whose statistics batch norm takes in training; None for the batch.
      images: number of training images, evenly spaced in the data set; None for all.
      shrink: the mean of so many pixels a side becomes one.
      augmented: whether images are shifted by up to four pixels and flipped, as in the paper.
      passes: over the images in an epoch, at whose end the network is evaluated.

    References:
      He et al., "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385,
      section 4.2.
    """

    network: str = "residual"
    norm: str | None = "batch"
    batch_size: int = 32
    epochs: int = 1
    schedule: str = "flat-momentum"
    lr_max: float = 0.1
    depth: int = 20
    widths: tuple[int, int, int] = (8, 16, 32)
    shortcut: str | None = "padding"
    zero_init: bool = False
    group: int | None = None
    images: int | None = 2048
    shrink: int = 2
    augmented: bool = False
    passes: int = 4  # type: ignore[misc]

    networks: ClassVar[tuple[str, ...]] = ("residual",)
    free: ClassVar[tuple[str, ...]] = (*Setting.free, "passes")

    def __post_init__(self) -> None:
        """Checks the values."""
        super().__post_init__()
        for name in ("images", "group"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        check_whole("shrink", self.shrink, 1)
        check_whole("passes", self.passes, 1)

    @property
    def images_kind(self) -> Hashable:
        """What `images_of` depends on."""
        return self.images, self.shrink

    def images_of(self, dataset: Dataset) -> Dataset:
        """Returns the chosen training images and all test images, shrunk."""
        train = dataset.train
        number = min(self.images or len(train.labels), len(train.labels))
        # Files may be ordered by class.
        chosen = np.arange(number) * len(train.labels) // number
        splits = Split(train.images[chosen], train.labels[chosen]), dataset.test
        made = [Split(shrunk(s.images, self.shrink), s.labels) for s in splits]
        return replace(dataset, train=made[0], test=made[1])

    @property
    def augment(self) -> tuple[ImageFunction, ...] | None:  # type: ignore[override]
        """Random changes of the training images."""
        return (RandomShift(4), RandomFlip()) if self.augmented else None

    @property
    def optimizer(self) -> Optimizer:
        """SGD with the paper's weight decay."""
        return optimizers.sgd(weight_decay=WEIGHT_DECAY)

    def build(self, image: tuple[int, ...], classes: int, layout: str, seed: int) -> ResNet:
        """Returns the network with the initial parameters of a seed, as `Setting.build`."""
        network = cifar_resnet(
            self.depth,
            classes=classes,
            widths=self.widths,
            in_features=image[-1],
            shortcut=self.shortcut,
            zero_init=self.zero_init,
            layout=layout,
            dtype=jnp.dtype(self.dtype),
            rngs=nnx.Rngs(seed),
        )
        if self.group is not None:
            use_ghost_batch_norm(network, self.group)
        return network


# For two CPU cores, and as in the paper: 164 passes over 50,000 images are 64,000 steps.
SMALL = ResidualSetting()
FULL = ResidualSetting(
    widths=(16, 32, 64),
    images=None,
    shrink=1,
    augmented=True,
    batch_size=128,
    epochs=41,
    passes=4,
)


def form_of(lab: Lab, **changes: Any) -> ResidualSetting:
    """Returns the setting of a session's size, small or full, with changes."""
    setting = FULL if lab.full else SMALL
    if lab.quick:
        changes |= {"epochs": 1, "passes": 1}
    return replace(setting, **changes)


def shrunk(images: np.ndarray, factor: int) -> np.ndarray:
    """Returns uint8 images (N, H, W, C) whose pixels are the means of factor×factor pixels.

    Rows and columns that do not fill a pixel are left out.
    """
    number, height, width, channels = images.shape
    rows, columns = height // factor, width // factor
    cut = images[:, : rows * factor, : columns * factor]
    parts = cut.reshape(number, rows, factor, columns, factor, channels)
    return np.round(parts.mean((2, 4))).astype(np.uint8)
