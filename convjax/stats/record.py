"""The record of a training: what every step did, as NumPy arrays with the step first.

A long training's record is bounded: neighbouring steps are merged into one row, exactly, and the
record says how many steps each row holds.
"""

import io
import operator
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from convjax._checks import check_type, check_whole, describe_value
from convjax._display import Displayed
from convjax.io.atomic import atomic_write
from convjax.io.npz import Arrays, read_npz, read_npz_file
from convjax.stats.activations import HIST_BINS, HIST_RANGE, ActivationStats, group_starts, merge
from convjax.stats.parameters import ParameterRecord
from convjax.stats.record_schema import (
    PARAMETER_FIELDS,
    check_parameter_arrays,
    check_record_arrays,
)

Array = npt.NDArray[Any]

# In NumPy's npz an array of strings is stored without pickle.
_LAYERS = "layers"
_FORMAT = 4
# Fields of the record of parameters are in the same file, with this before their names.
_PARAMETERS = "parameters"
# Fields with one row per watched step, or per group of them; and those with one per step.
_STATS = ActivationStats._fields
WATCHED = (*_STATS, "watched", "watched_count", "eval_loss")
PER_STEP = ("loss", "learning_rate", "momentum", "first")


class RecordError(ValueError):
    """A file does not hold a record, or not a whole one."""


@dataclass(frozen=True, repr=False)
class Record(Displayed):
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
      hist: (S, L, 40) counts over 0..10; under, over: (S, L) counts of x < 0 and x > 10.
      channels: (L,) of each layer, empty where units were not kept; active: (S, bytes) which of all
        channels were active, one bit each in the order of the layers, see `active_channels`.
      eval_loss: (S,) loss of the batches of `watched` with the model in evaluation mode.
      parameters: norms and magnitudes of gradients and updates, None where none were kept.

    Histograms, active and eval_loss have no rows where they were not kept.
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
    channels: Array
    active: Array
    eval_loss: Array
    parameters: ParameterRecord | None = None

    def __repr__(self) -> str:
        rows = "" if len(self.first) == self.steps else f" in {len(self.first):,} rows"
        return f"Record({self.steps:,} steps{rows}, {len(self.layers):,} layers)"

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

    def active_channels(self, layer: int | str) -> Array:
        """Returns which channels of a layer had a value above 0 in each row, bool (S, C).

        Raises:
          ValueError: if the training kept no units.
        """
        if len(self.active) < len(self.watched) or not self.layers:
            raise ValueError(
                "record must hold units, got none. Train with Watch(units=True), or give "
                "Recorder.add what layer_stats(outputs, units=True) returns."
            )
        column = self.layer(layer)
        first = int(self.channels[:column].sum())
        total = int(self.channels.sum())
        bits = np.unpackbits(self.active, axis=1, count=total).view(bool)
        return bits[:, first : first + int(self.channels[column])]

    def dead(self, layer: int | str, *, steps: int = 100) -> Array:
        """Returns the share of a layer's channels that were never active of late, (S,).

        A channel is dead at a row if none of its values was above 0 at any watched step of the
        row and of those before it that lie within so many steps. Where the record does not reach so
        far back, NaN: nothing can be said yet.

        Raises:
          ValueError: if steps is below 1, or the training kept no units.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        active = self.active_channels(layer)
        ends = np.append(self.watched[1:], self.steps)  # rows may hold several steps
        last_active = np.where(active, np.arange(len(active))[:, None], -1)
        last_active = np.maximum.accumulate(last_active, axis=0)  # row in which it was last active
        since = np.searchsorted(ends, ends - steps, side="right")  # the first row that counts
        share = np.mean(last_active < since[:, None], axis=1) if active.size else np.ones(0)
        return np.where(ends >= steps, share, np.nan)

    def layer(self, which: int | str) -> int:
        """Returns the column of a layer, given by its name or by an index that may be negative.

        Raises:
          IndexError, KeyError: if there is none such; the message lists the layers.
          TypeError: if it is neither a name nor a whole number.
        """
        if isinstance(which, str):
            if which not in self.layers:
                raise KeyError(f"no layer {which!r}; the record has {', '.join(self.layers)}.")
            return self.layers.index(which)
        try:
            which = operator.index(which)
        except TypeError:
            raise TypeError(
                f"layer must be a name or an index, got {describe_value(which)}."
            ) from None
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
        with atomic_write(path) as file:
            self._write(file)

    def to_bytes(self) -> bytes:
        """Returns the content of the file that `save` writes."""
        file = io.BytesIO()
        self._write(file)
        return file.getvalue()

    def _write(self, file: BinaryIO) -> None:
        arrays = {name: getattr(self, name) for name in _OWN}
        arrays[_LAYERS] = np.array(self.layers, dtype=np.str_)
        if self.parameters is not None:
            of_parameters = asdict(self.parameters)
            of_parameters["names"] = np.array(self.parameters.names, dtype=np.str_)
            arrays |= {f"{_PARAMETERS}.{name}": value for name, value in of_parameters.items()}
        np.savez_compressed(file, format=np.int64(_FORMAT), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Record":
        """Reads a record that `save` wrote. Nothing in the file is executed.

        Memory is bounded by the file's length and `convjax.io.npz.LIMIT`.

        Raises:
          FileNotFoundError: if there is no such file.
          RecordError: if the file is damaged or is no record: its arrays have other types, or
            shapes or steps that do not fit each other.
          TypeError: if path is no path.
        """
        return cls._read(lambda: read_npz(path), str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "content") -> "Record":
        """Reads what `to_bytes` returned.

        Args:
          name: of the content, for messages.

        Raises:
          RecordError: as `load`.
        """
        return cls._read(lambda: read_npz_file(io.BytesIO(content)), name)

    @classmethod
    def _read(cls, read: Callable[[], Arrays], name: str) -> "Record":
        try:
            arrays = read()
            if "format" not in arrays:
                raise ValueError("format is missing")
            if arrays["format"].tolist() != _FORMAT:
                raise RecordError(
                    f"{name} has record format {arrays['format']!s:.40}, this version reads "
                    f"{_FORMAT}: read it with the version that wrote it, or train again."
                )
            check_record_arrays(arrays)
            parameters = _parameters(arrays)
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError(
                f"{name} is not a whole record of convjax: {error}. Take another copy of it, or "
                "train again."
            ) from error
        own: dict[str, Any] = {name: arrays[name] for name in _OWN}
        own["steps"], own[_LAYERS] = int(own["steps"]), tuple(map(str, own[_LAYERS]))
        return cls(**own, parameters=parameters)

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
        cut: dict[str, Any] = {name: getattr(self, name)[of_steps] for name in PER_STEP}
        cut |= {name: getattr(self, name)[inside] for name in WATCHED}
        moved = {name: cut[name] - start for name in ("first", "watched")}
        parameters = self.parameters and self.parameters.between(start, stop)
        return replace(self, **cut | moved, steps=max(stop - start, 0), parameters=parameters)

    def merged(self, rows: int) -> "Record":
        """Returns the record with at most so many rows: every 2, 4, 8, … steps are one.

        Counts are exact, and mean and std are those of all values, up to rounding. The loss, rate
        and momentum of a row are means over its steps; a loss that is not finite stays so.

        Raises:
          TypeError: if rows is no whole number.
          ValueError: if it is below 1.
        """
        check_whole("rows", rows, 1)
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
        first = self.first[starts]
        parameters = self.parameters and self.parameters.merged(first)
        return replace(self, **changed | _merged_statistics(self, first), parameters=parameters)


# The record of parameters is written apart.
_OWN = tuple(field.name for field in fields(Record) if field.name != "parameters")


def _parameters(arrays: Arrays) -> ParameterRecord | None:
    """Returns the record of parameters from the arrays of a file, None where there is none."""
    prefix = f"{_PARAMETERS}."
    found = {n.removeprefix(prefix): array for n, array in arrays.items() if n.startswith(prefix)}
    if not found:
        return None
    check_parameter_arrays(found, int(arrays["steps"]))
    names = tuple(map(str, found.pop("names")))
    return ParameterRecord(
        names, **{name: found[name] for name in PARAMETER_FIELDS if name in found}
    )


def check_record(name: str, value: Any) -> None:
    """Raises TypeError if an argument is no record."""
    way_out = "Trainer.run returns one, Recorder.record() makes one, Record.load reads one."
    check_type(name, value, Record, way_out)


def _merged_statistics(record: Record, first: Array) -> dict[str, Any]:
    """Returns the fields of the watched steps, merged into rows that begin at the steps `first`."""
    if not len(record.watched):
        return {}
    starts = group_starts(first, record.watched)
    # A field without rows is one that the training did not keep.
    kept: list[Any] = [c if len(c := getattr(record, name)) else None for name in _STATS]
    merged = merge(ActivationStats(*kept), record.values, starts)
    columns = {name: column for name, column in merged._asdict().items() if column is not None}
    counts = np.add.reduceat(record.watched_count, starts)
    if len(record.eval_loss):
        with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
            total = np.add.reduceat(record.eval_loss * record.watched_count, starts)
        columns["eval_loss"] = (total / counts).astype(record.eval_loss.dtype)
    return {"watched": record.watched[starts], "watched_count": counts, **columns}


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
