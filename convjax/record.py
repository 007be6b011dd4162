"""The record of a training: what every step did, as NumPy arrays with the step first."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convjax.files import replacing
from convjax.stats import HIST_BINS, HIST_RANGE, ActivationStats

Array = npt.NDArray[Any]

# In NumPy's npz an array of strings is stored without pickle.
_LAYERS = "layers"
_FORMAT = 2
# Fields with one row per watched step.
_WATCHED = (*ActivationStats._fields, "watched")


class RecordError(ValueError):
    """A file does not hold a record, or not a whole one."""


@dataclass(frozen=True)
class Record:
    """T training steps, S of them with statistics of L layers.

    Attributes:
      layers: names of the layers in the order of their first call.
      sizes: (L,) values per layer and step: examples × units.
      loss: (T,) loss of each batch before its update.
      learning_rate, momentum: (T,) as the optimiser's state held them for the update.
      watched: (S,) the steps at which the statistics were taken, from 0 to T − 1.
      mean, std, near_zero, abs_near_zero: (S, L); std is unbiased, near_zero is the share of
        x <= 0.05 and abs_near_zero that of |x| <= 0.05.
      hist: (S, L, 40) counts over 0..10; under, over: (S, L) counts of x < 0 and x > 10. They have
        no rows where the training kept no histograms.
    """

    layers: tuple[str, ...]
    sizes: Array
    loss: Array
    learning_rate: Array
    momentum: Array
    watched: Array
    mean: Array
    std: Array
    near_zero: Array
    abs_near_zero: Array
    hist: Array
    under: Array
    over: Array

    @property
    def steps(self) -> int:
        """Number of training steps T."""
        return len(self.loss)

    @property
    def hist_edges(self) -> Array:
        """Edges of the histogram's bins, shape (41,), in units of the activation."""
        return np.linspace(*HIST_RANGE, HIST_BINS + 1)

    def check_histograms(self) -> None:
        """Raises ValueError if the training kept no histograms."""
        if len(self.hist) < len(self.watched) or not self.layers:
            raise ValueError(
                "record must hold histograms, got none. Train with Watch(histogram=True)."
            )

    def nan(self) -> Array:
        """Returns how many values were NaN: those in no other count, shape (S, L).

        Raises:
          ValueError: if the record has no histograms.
        """
        self.check_histograms()
        return self.sizes - self.hist.sum(-1) - self.under - self.over

    def layer(self, which: int | str) -> int:
        """Returns the column of a layer, given by its name or by an index that may be negative.

        Raises:
          IndexError, KeyError: if there is none such; the message lists the layers.
        """
        if isinstance(which, str):
            if which not in self.layers:
                raise KeyError(f"no layer {which!r}; the record has {', '.join(self.layers)}.")
            return self.layers.index(which)
        if not -len(self.layers) <= which < len(self.layers):
            raise IndexError(
                f"layer {which} is out of range; the record has {len(self.layers)} layers: "
                f"{', '.join(self.layers)}."
            )
        return which % len(self.layers)

    def smoothed_loss(self, weight: float = 0.98) -> Array:
        """Returns the loss as fastai's table shows it: see `smooth`."""
        return smooth(self.loss, weight)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the record to an .npz file, atomically: a reader sees the old or the new one."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays[_LAYERS] = np.array(self.layers, dtype=np.str_)
        with replacing(path) as file:
            np.savez_compressed(file, format=np.int64(_FORMAT), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Record":
        """Reads a record that `save` wrote. Nothing in the file is executed.

        Raises:
          FileNotFoundError: if there is no such file.
          RecordError: if the file is damaged or is no record.
        """
        try:
            # Opened here, because np.load leaves a damaged file open.
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                if int(file["format"]) != _FORMAT:
                    raise RecordError(
                        f"{path} has record format {file['format']}, this version reads {_FORMAT}."
                    )
                arrays = {field.name: file[field.name] for field in fields(cls)}
        except FileNotFoundError:
            raise
        except RecordError:
            raise
        except Exception as error:  # zipfile, zlib, NumPy and KeyError all mean a damaged file
            raise RecordError(f"{path} is not a whole record of convjax: {error}.") from error
        arrays[_LAYERS] = tuple(str(name) for name in arrays[_LAYERS])
        return cls(**arrays)

    def rows(self, start: int, stop: int) -> "Record":
        """Returns the record of the steps from `start` to before `stop`."""
        start, stop, _ = slice(start, stop).indices(self.steps)
        inside = slice(*np.searchsorted(self.watched, (start, stop)))
        per_step: dict[str, Any] = {
            field.name: getattr(self, field.name)[
                inside if field.name in _WATCHED else slice(start, stop)
            ]
            for field in fields(self)
            if field.name not in (_LAYERS, "sizes")
        }
        return replace(self, **per_step | {"watched": per_step["watched"] - start})


def concatenate(records: Sequence[Record]) -> Record:
    """Joins records of successive steps of one training."""
    if not records:
        raise ValueError("records must hold at least one record, got none.")
    layers = {(record.layers, tuple(record.sizes)) for record in records}
    histograms = {len(record.hist) > 0 for record in records if len(record.watched)}
    if len(layers) > 1 or len(histograms) > 1:
        raise ValueError(
            "records must be of one training: the same layers of the same sizes, and all of them "
            "with histograms or none."
        )
    per_step: dict[str, Any] = {
        field.name: np.concatenate([getattr(record, field.name) for record in records])
        for field in fields(Record)
        if field.name not in (_LAYERS, "sizes")
    }
    before = np.cumsum([0, *(record.steps for record in records[:-1])])
    per_step["watched"] = np.concatenate(
        [record.watched + first for record, first in zip(records, before, strict=True)]
    )
    return replace(records[0], **per_step)


def from_steps(
    layers: Iterable[str],
    sizes: Iterable[int],
    loss: Array,
    learning_rate: Array,
    momentum: Array,
    watched: Array,
    stats: Sequence[ActivationStats],
) -> Record:
    """Makes a record of arrays whose first axis is the step, one `ActivationStats` per layer."""

    def column(name: str) -> Array:
        values = [getattr(layer, name) for layer in stats]
        bins = (HIST_BINS,) if name == "hist" else ()
        if not values:
            return np.zeros((len(watched), 0, *bins))
        if values[0] is None:
            return np.zeros((0, len(values), *bins), np.int32)
        return np.stack([np.asarray(value) for value in values], axis=1)

    columns = {name: column(name) for name in ActivationStats._fields}
    return Record(
        layers=tuple(layers),
        sizes=np.array(list(sizes), np.int64),
        loss=np.asarray(loss),
        learning_rate=np.asarray(learning_rate),
        momentum=np.asarray(momentum),
        watched=np.asarray(watched, np.int64),
        **columns,
    )


def smooth(values: Array, weight: float = 0.98) -> Array:
    """Returns the exponential average so far, corrected for its start, at every step.

    s ← weight·s + (1 − weight)·value from s = 0, divided by 1 − weight^count: the first is the
    first value itself.

    Reference: fastai's `AvgSmoothLoss`, https://docs.fast.ai/learner.html#AvgSmoothLoss.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight must be at least 0 and below 1, got {weight}.")
    smoothed = np.empty(len(values), np.float64)
    average = 0.0
    for i, value in enumerate(values):
        average = weight * average + (1 - weight) * float(value)
        smoothed[i] = average / (1 - weight ** (i + 1))
    return smoothed
