"""The record of a training: what every step did, as NumPy arrays with the step first.

A long training's record is bounded: neighbouring steps are merged into one row, exactly, and the
record says how many steps each row holds.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convjax.files import replacing
from convjax.stats import HIST_BINS, HIST_RANGE, ActivationStats, merge

Array = npt.NDArray[Any]

# In NumPy's npz an array of strings is stored without pickle.
_LAYERS = "layers"
_FORMAT = 3
# Fields with one row per watched step, or per group of them; and those with one per step.
_STATS = ActivationStats._fields
_WATCHED = (*_STATS, "watched", "watched_count")
_PER_STEP = ("loss", "learning_rate", "momentum", "first")


class RecordError(ValueError):
    """A file does not hold a record, or not a whole one."""


@dataclass(frozen=True)
class Record:
    """R rows of training steps, S of them with statistics of L layers.

    As a rule a row is one step. Where `merged` has bounded the record, it is several neighbours:
    their counts are added, and their means and standard deviations are those of all their values.

    Attributes:
      layers: names of the layers in the order of their first call.
      sizes: (L,) values per layer and step: examples × units.
      steps: number of training steps T.
      first: (R,) the first step of each row.
      loss: (R,) loss of each batch before its update.
      learning_rate, momentum: (R,) as the optimiser's state held them for the update.
      watched: (S,) the first of the steps at which the statistics of a row were taken.
      watched_count: (S,) how many steps these were.
      mean, std, near_zero, abs_near_zero: (S, L); std is unbiased, near_zero is the share of
        x <= 0.05 and abs_near_zero that of |x| <= 0.05.
      hist: (S, L, 40) counts over 0..10; under, over: (S, L) counts of x < 0 and x > 10. They have
        no rows where the training kept no histograms.
    """

    layers: tuple[str, ...]
    sizes: Array
    steps: int
    first: Array
    loss: Array
    learning_rate: Array
    momentum: Array
    watched: Array
    watched_count: Array
    mean: Array
    std: Array
    near_zero: Array
    abs_near_zero: Array
    hist: Array
    under: Array
    over: Array

    @property
    def counts(self) -> Array:
        """How many steps each row holds, (R,)."""
        return np.diff(self.first, append=self.steps)

    @property
    def values(self) -> Array:
        """How many values the statistics are of, (S, L)."""
        return self.watched_count[:, None] * self.sizes

    @property
    def hist_edges(self) -> Array:
        """Edges of the histogram's bins, shape (41,), in units of the activation."""
        return np.linspace(*HIST_RANGE, HIST_BINS + 1)

    def check_histograms(self) -> None:
        """Raises ValueError if the training kept no histograms."""
        if len(self.hist) < len(self.watched) or not self.layers:
            raise ValueError(
                "record must hold histograms, got none. Train with Watch(histogram=True), or give "
                "Recorder.add what layer_stats(outputs) returns."
            )

    def nan(self) -> Array:
        """Returns how many values were NaN: those in no other count, shape (S, L).

        Raises:
          ValueError: if the record has no histograms.
        """
        self.check_histograms()
        return self.values - self.hist.sum(-1) - self.under - self.over

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
        """Returns the loss as fastai's table shows it, see `smooth`; a merged row counts as so many
        steps of its mean."""
        return smooth(self.loss, weight, self.counts)

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
                        f"{path} has record format {file['format']}, this version reads {_FORMAT}: "
                        "read it with the version that wrote it, or train again."
                    )
                arrays = {field.name: file[field.name] for field in fields(cls)}
        except FileNotFoundError:
            raise
        except RecordError:
            raise
        except Exception as error:  # zipfile, zlib, NumPy and KeyError all mean a damaged file
            # Not NumPy's own words, which advise to load what may be dangerous; a KeyError names
            # what is missing.
            detail = str(error) if isinstance(error, KeyError) else type(error).__name__
            raise RecordError(f"{path} is not a whole record of convjax: {detail}.") from error
        arrays[_LAYERS] = tuple(str(name) for name in arrays[_LAYERS])
        return cls(**arrays | {"steps": int(arrays["steps"])})

    def between(self, start: int, stop: int) -> "Record":
        """Returns the record of the steps from `start` to before `stop`.

        Raises:
          ValueError: if one of them lies within a merged row.
        """
        start, stop, _ = slice(start, stop).indices(self.steps)
        bounds = np.append(self.first, self.steps)
        for name, step in (("start", start), ("stop", stop)):
            after = int(np.searchsorted(bounds, step))
            if bounds[after] != step:
                raise ValueError(
                    f"{name} must lie between merged rows, got {step}, within that of steps "
                    f"{bounds[after - 1]} to {bounds[after] - 1}."
                )
        of_steps = slice(*np.searchsorted(self.first, (start, stop)))
        inside = slice(*np.searchsorted(self.watched, (start, stop)))
        cut: dict[str, Any] = {name: getattr(self, name)[of_steps] for name in _PER_STEP}
        cut |= {name: getattr(self, name)[inside] for name in _WATCHED}
        moved = {name: cut[name] - start for name in ("first", "watched")}
        return replace(self, **cut | moved, steps=max(stop - start, 0))

    def merged(self, rows: int) -> "Record":
        """Returns the record with at most so many rows: every 2, 4, 8, … steps are one.

        Counts are exact, and mean and std are those of all values, up to rounding. The loss, rate
        and momentum of a row are means over its steps; a loss that is not finite stays so.

        Raises:
          ValueError: if rows is below 1.
        """
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}.")
        span = 1
        while -(-self.steps // span) > rows:
            span *= 2
        starts = np.flatnonzero(np.diff(self.first // span, prepend=-1))
        if len(starts) == len(self.first):
            return self
        weights = self.counts.astype(np.float64)
        total = np.add.reduceat(weights, starts)

        def mean(values: Array) -> Array:
            with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
                return (np.add.reduceat(values * weights, starts) / total).astype(values.dtype)

        changed: dict[str, Any] = {
            "first": self.first[starts],
            "loss": mean(self.loss),
            "learning_rate": mean(self.learning_rate),
            "momentum": mean(self.momentum),
        }
        return replace(self, **changed | _merged_statistics(self, self.first[starts]))


def concatenate(records: Sequence[Record]) -> Record:
    """Joins records of successive steps of one training, some of them perhaps without statistics.

    Raises:
      ValueError: if there is no record, or their layers differ.
    """
    if not records:
        raise ValueError("records must hold at least one record, got none.")
    before = np.cumsum([0, *(record.steps for record in records)])
    with_layers = [i for i, record in enumerate(records) if record.layers]
    layers = {(records[i].layers, tuple(records[i].sizes)) for i in with_layers}
    histograms = {len(record.hist) > 0 for record in records if len(record.watched)}
    if len(layers) > 1 or len(histograms) > 1:
        raise ValueError(
            "records must be of one training: the same layers of the same sizes, and all of them "
            "with histograms or none."
        )

    def joined(name: str, indices: Sequence[int]) -> Array:
        columns = [getattr(records[i], name) for i in indices]
        if name in ("first", "watched"):  # steps, counted from the start of all
            columns = [column + before[i] for column, i in zip(columns, indices, strict=True)]
        return np.concatenate(columns)

    everyone = range(len(records))
    of_layers = with_layers or everyone
    changed: dict[str, Any] = {name: joined(name, everyone) for name in _PER_STEP}
    changed |= {name: joined(name, of_layers) for name in _WATCHED}
    return replace(records[of_layers[0]], **changed, steps=int(before[-1]))


def _merged_statistics(record: Record, first: Array) -> dict[str, Any]:
    """Returns the fields of the watched steps, merged into rows that begin at the steps `first`."""
    if not len(record.watched):
        return {}
    row_of = np.searchsorted(first, record.watched, side="right")
    starts = np.flatnonzero(np.diff(row_of, prepend=0))
    # A field without rows is one that the training did not keep.
    kept: list[Any] = [c if len(c := getattr(record, name)) else None for name in _STATS]
    merged = merge(ActivationStats(*kept), record.values, starts)
    columns = {name: column for name, column in merged._asdict().items() if column is not None}
    return {
        "watched": record.watched[starts],
        "watched_count": np.add.reduceat(record.watched_count, starts),
        **columns,
    }


def from_steps(
    layers: Iterable[str],
    sizes: Iterable[int],
    loss: Array,
    learning_rate: Array,
    momentum: Array,
    watched: Array,
    stats: Sequence[ActivationStats],
) -> Record:
    """Makes a record of arrays whose first axis is the step, one `ActivationStats` per layer.

    A row for every step: nothing is merged.
    """

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
        steps=len(loss),
        first=np.arange(len(loss)),
        loss=np.asarray(loss),
        learning_rate=np.asarray(learning_rate),
        momentum=np.asarray(momentum),
        watched=np.asarray(watched, np.int64),
        watched_count=np.ones(len(watched), np.int64),
        **columns,
    )


def smooth(values: Array, weight: float = 0.98, counts: Array | None = None) -> Array:
    """Returns the exponential average so far, corrected for its start, at every step.

    s ← weight·s + (1 − weight)·value from s = 0, divided by 1 − weight^count: the first is the
    first value itself.

    Args:
      counts: how many equal values each stands for; one by default.

    Reference: fastai's `AvgSmoothLoss`, https://docs.fast.ai/learner.html#AvgSmoothLoss.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight must be at least 0 and below 1, got {weight}.")
    smoothed = np.empty(len(values), np.float64)
    average, done = 0.0, 0
    for i, value in enumerate(values):
        count = 1 if counts is None else int(counts[i])
        kept = weight**count
        average = kept * average + (1 - kept) * float(value)
        done += count
        smoothed[i] = average / (1 - weight**done)
    return smoothed
