"""The training loop: steps compiled together, evaluation, whole trainings, and sweeps of them."""

from convjax.train._fit import Callback, FitResult, TrainingStopped, fit
from convjax.train._sweep import Sweep, SweepRun, sweep
from convjax.train.augmentation import (
    AugmentedBatch,
    Cutout,
    Mixup,
    RandomBrightness,
    RandomContrast,
    RandomFlip,
    RandomShift,
)
from convjax.train.device_data import Images
from convjax.train.losses import (
    accuracy,
    binary_accuracy,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
    top_k_accuracy,
)
from convjax.train.lr_finder import LRFind, lr_find
from convjax.train.metric_writer import MetricWriter
from convjax.train.plan import Plan
from convjax.train.trainer import Trainer

__all__ = [
    "AugmentedBatch",
    "Callback",
    "Cutout",
    "FitResult",
    "Images",
    "LRFind",
    "MetricWriter",
    "Mixup",
    "Plan",
    "RandomBrightness",
    "RandomContrast",
    "RandomFlip",
    "RandomShift",
    "Sweep",
    "SweepRun",
    "Trainer",
    "TrainingStopped",
    "accuracy",
    "binary_accuracy",
    "binary_cross_entropy",
    "cross_entropy",
    "fit",
    "lr_find",
    "squared_error",
    "sweep",
    "top_k_accuracy",
]
