"""The record of a training: the statistics of its steps, as NumPy arrays with the step first.

The record of a long training is bounded: neighbouring steps are merged into one row, exactly, and
the record stores how many steps each row holds.
"""

import io
import operator
import os
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int, UInt8

from convjax._checks import check_type, check_whole, describe_value
from convjax._display import Displayed
from convjax.io.atomic import atomic_write
from convjax.io.npz import read_npz, read_npz_file
from convjax.nn.outputs import LayerKind
from convjax.stats._frame import record_frame
from convjax.stats.activations import ActivationStats
from convjax.stats.bins import FASTAI
from convjax.stats.facts import merge_facts
from convjax.stats.forms import NEAR_ZERO
from convjax.stats.merging import group_starts, mean_of_rows, merge_rows, row_span
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record_file import LIMIT, from_arrays, to_arrays
from convjax.stats.smoothing import smooth

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

# Fields with one row per watched step, or per group of them; and those with one per step.
_STATS = ActivationStats._fields
WATCHED = (*_STATS, "watched", "watched_count", "counted", "eval_loss")
PER_STEP = ("loss", "learning_rate", "momentum", "first")


@dataclass(frozen=True, repr=False)
class Record(Displayed):
    """R rows of training steps, S of them with statistics of L layers.

    As a rule a row is one step. In a bounded record, see `merged`, a row is several neighbouring
    steps: their counts are added, and their means and standard deviations are those of all their
    values. Fields that were not recorded (hist, under, over, active, eval_loss) have no rows.

    Attributes:
      layers: names of the layers, in the order of their first call.
      sizes: (L,) values per layer and step: examples × units, of all members of an ensemble. Where
        batches have several sizes, these are those of the first watched step, and `counted` has
        the numbers of all.
      steps: number of training steps T.
      first: (R,) the first step of each row.
      loss: (R,) loss of each batch before its update.
      learning_rate: (R,) as the optimiser's state held it for the update.
      momentum: (R,) likewise.
      watched: (S,) the first of the steps at which the statistics of a row were taken.
      watched_count: (S,) the number of these steps.
      mean: (S, L).
      std: (S, L), unbiased.
      near_zero: (S, L) share of x <= near_zero_threshold, with all negative numbers.
      abs_near_zero: (S, L) share of `|x| <= near_zero_threshold`.
      hist: (S, L, B) counts of the bins.
      under: (S, L) counts of x below the bins.
      over: (S, L) counts of x above the bins.
      channels: (L,) number of channels of each layer; empty without units.
      active: (S, bytes) whether each channel was active, one bit each in the order of the layers;
        `active_channels` unpacks it.
      eval_loss: (S,) loss of the batches of `watched` with the model in evaluation mode; NaN where
        it was not taken.
      parameters: norms and magnitudes of gradients and updates, or None.
      hist_edges: (B + 1,) edges of the bins, in units of the activation.
      near_zero_threshold: in units of the activation.
      counted: (S, L) the number of values of each row's statistics, see `values`; no rows if every
        step has `sizes`.
      facts: by name (S,), of the batches' outputs and labels, see `convjax.stats.facts`; NaN where
        one was not taken.
      kinds: of the layers: their classes and non-linearities; empty where they are not known.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Record, Recorder, layer_stats
      >>> recorder = Recorder()
      >>> for loss in (2.0, 1.0):
      ...     recorder.add(loss, layer_stats({"conv": jnp.array([-1.0, 0.5, 3.0, 12.0])}))
      >>> record = recorder.record()
      >>> record
      Record(2 steps, 1 layers)
      >>> record.active_share("conv").tolist()
      [0.75, 0.75]
      >>> Record.from_bytes(record.to_bytes()).hist_edges[:3].tolist()
      [0.0, 0.25, 0.5]
    """

    layers: tuple[str, ...]
    sizes: Int[np.ndarray, " L"]
    steps: int
    first: Int[np.ndarray, " R"]
    loss: Float[np.ndarray, " R"]
    learning_rate: Float[np.ndarray, " R"]
    momentum: Float[np.ndarray, " R"]
    watched: Int[np.ndarray, " S"]
    watched_count: Int[np.ndarray, " S"]
    mean: Float[np.ndarray, "S L"]
    std: Float[np.ndarray, "S L"]
    near_zero: Float[np.ndarray, "S L"]
    abs_near_zero: Float[np.ndarray, "S L"]
    hist: Int[np.ndarray, "_ L B"]
    under: Int[np.ndarray, "_ L"]
    over: Int[np.ndarray, "_ L"]
    channels: Int[np.ndarray, " _"]
    active: UInt8[np.ndarray, "_ _"]
    eval_loss: Float[np.ndarray, " _"]
    parameters: ParameterRecord | None = None
    hist_edges: Float[np.ndarray, " edges"] = field(default_factory=lambda: FASTAI.edges)
    near_zero_threshold: float = NEAR_ZERO
    counted: Int[np.ndarray, "_ _"] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    facts: dict[str, Float[np.ndarray, " S"]] = field(default_factory=dict)
    kinds: tuple[LayerKind, ...] = ()

    def __repr__(self) -> str:
        rows = "" if len(self.first) == self.steps else f" in {len(self.first):,} rows"
        return f"Record({self.steps:,} steps{rows}, {len(self.layers):,} layers)"

    @property
    def counts(self) -> Int[np.ndarray, " R"]:
        """The number of steps in each row."""
        return np.diff(self.first, append=self.steps)

    @property
    def values(self) -> Int[np.ndarray, "S L"]:
        """The number of values of each row's statistics."""
        return self.counted if len(self.counted) else self.watched_count[:, None] * self.sizes

    def check_histograms(self) -> None:
        """Raises ValueError if the record has no histograms."""
        if len(self.hist) < len(self.watched) or not self.layers:
            raise ValueError(
                "record must hold histograms, got none. Train with Watch(histogram=True), or give "
                "Recorder.add what layer_stats(outputs) returns."
            )

    def has_edge(self, level: float) -> bool:
        """Returns whether a level is one of the edges of the histogram's bins."""
        edges = self.hist_edges
        return bool(np.isclose(edges, level, rtol=1e-6, atol=1e-6 * np.diff(edges).min()).any())

    def active_share(
        self, layer: int | str, above: float = FASTAI.width
    ) -> Float[np.ndarray, " S"]:
        """Returns the share of a layer's values that are at or above a level.

        By default the level is 0.25, the end of the first bin, which is the bright bottom of the
        colour dimension. The chapter calls the values above it non-zero activations.

        Args:
          layer: a name, or an index that may be negative.
          above: one of `hist_edges`, in units of the activation.

        Raises:
          IndexError, KeyError: if the record has no such layer.
          ValueError: if the record has no histograms, or `above` is not one of `hist_edges`.
        """
        self.check_histograms()
        column, edges = self.layer(layer), self.hist_edges
        if not self.has_edge(above):
            raise ValueError(
                f"above must be an edge of the histogram's bins ({edges[0]:g}, {edges[1]:g}, … "
                f"{edges[-1]:g}), got {above}."
            )
        first = int(np.argmin(np.abs(edges - above)))
        active = self.hist[:, column, first:].sum(-1) + self.over[:, column]
        return np.asarray(active / self.values[:, column])

    def nan(self) -> Int[np.ndarray, "S L"]:
        """Returns the number of NaNs: the values in no other count.

        Raises:
          ValueError: if the record has no histograms.
        """
        self.check_histograms()
        return np.asarray(self.values - self.hist.sum(-1) - self.under - self.over)

    def active_channels(self, layer: int | str) -> Bool[np.ndarray, "S C"]:
        """Returns whether each channel of a layer had a value above 0 in each row.

        Raises:
          ValueError: if the record has no units.
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

    def dead(self, layer: int | str, *, steps: int = 100) -> Float[np.ndarray, " S"]:
        """Returns the share of a layer's channels that were not active in the last steps.

        A channel is dead at a row if none of its values was above 0 at the watched steps of that
        row and of the rows within the last `steps` steps. Rows with fewer steps before them are
        NaN.

        Raises:
          ValueError: if steps is below 1, or the record has no units.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        active = self.active_channels(layer)
        ends = np.append(self.watched[1:], self.steps)  # rows may hold several steps
        last_active = np.where(active, np.arange(len(active))[:, None], -1)
        last_active = np.maximum.accumulate(last_active, axis=0)  # row in which it was last active
        since = np.searchsorted(ends, ends - steps, side="right")  # first row within the last steps
        share = np.mean(last_active < since[:, None], axis=1) if active.size else np.ones(0)
        return np.where(ends >= steps, share, np.nan)

    def layer(self, which: int | str) -> int:
        """Returns the column of a layer.

        Args:
          which: a name, or an index that may be negative.

        Raises:
          IndexError, KeyError: if the record has no such layer; the message lists the layers.
          TypeError: if it is neither a name nor a whole number.
        """
        names = ", ".join(self.layers) or "none"
        if isinstance(which, str):
            if which not in self.layers:
                raise KeyError(f"layer must be one of the record's ({names}), got {which!r}.")
            return self.layers.index(which)
        try:
            which = operator.index(which)
        except TypeError:
            raise TypeError(
                f"layer must be a name or an index, got {describe_value(which)}."
            ) from None
        if not -len(self.layers) <= which < len(self.layers):
            raise IndexError(
                f"layer must be an index of the record's {len(self.layers)} layers ({names}), got "
                f"{which}."
            )
        return which % len(self.layers)

    def smoothed_loss(self, weight: float = 0.98) -> Float[np.ndarray, " R"]:
        """Returns the loss as fastai's table shows it, see `convjax.stats.smoothing.smooth`.

        A merged row counts as that many steps of its mean.
        """
        return smooth(self.loss, weight, self.counts)

    def to_frame(self) -> "pd.DataFrame":
        """Returns the record as a pandas DataFrame with one row per step, or per row of steps.

        The columns are those of `convjax.scalars`: loss, learning_rate, momentum, eval_loss,
        layers/LAYER/mean (std, near_zero) and parameters/PARAMETER/weight_norm (grad_norm,
        update_ratio); and facts/NAME. A step without statistics has NaN in them.

        Raises:
          ImportError: if pandas is not installed.

        Examples:
          >>> import jax.numpy as jnp
          >>> from convjax import Recorder, layer_stats
          >>> recorder = Recorder()
          >>> for loss in (2.0, 1.0):
          ...     recorder.add(loss, layer_stats({"conv": jnp.array([-1.0, 3.0])}))
          >>> recorder.record().to_frame()[["loss", "layers/conv/mean"]]
                loss  layers/conv/mean
          step
          0      2.0               1.0
          1      1.0               1.0
        """
        return record_frame(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the record to an .npz file, atomically: a reader sees the old or the new one."""
        with atomic_write(path) as file:
            np.savez_compressed(file, **self._arrays())

    def to_bytes(self) -> bytes:
        """Returns the content of the file that `save` writes."""
        file = io.BytesIO()
        np.savez_compressed(file, **self._arrays())
        return file.getvalue()

    def _arrays(self) -> dict[str, Any]:
        return dict(to_arrays({f.name: getattr(self, f.name) for f in fields(self)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Record":
        """Returns the record in a file that `save` wrote. Nothing in the file is executed.

        Memory is bounded by the file's length and `convjax.stats.record_file.LIMIT`.

        Raises:
          FileNotFoundError: if the file does not exist.
          RecordError: if the file is damaged or is not a record: its arrays have other types, or
            shapes or steps that do not agree.
          TypeError: if path is not a path.
        """
        return cls(**from_arrays(lambda check: read_npz(path, limit=LIMIT, check=check), str(path)))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "content") -> "Record":
        """Returns the record that `to_bytes` was called on.

        Args:
          content: what `to_bytes` returned.
          name: of the content, for messages.

        Raises:
          RecordError: as `load`.
        """
        return cls(
            **from_arrays(
                lambda check: read_npz_file(io.BytesIO(content), limit=LIMIT, check=check), name
            )
        )

    def between(self, start: int, stop: int) -> "Record":
        """Returns the record of the steps from `start` to before `stop`.

        Raises:
          ValueError: if start or stop is inside a merged row.
        """
        start, stop, _ = slice(start, stop).indices(self.steps)
        bounds = np.append(self.first, self.steps)
        for name, step in (("start", start), ("stop", stop)):
            after = int(np.searchsorted(bounds, step))
            if bounds[after] != step:
                raise ValueError(
                    f"{name} must lie between merged rows, got {step}, inside the row of steps "
                    f"{bounds[after - 1]} to {bounds[after] - 1}."
                )
        of_steps = slice(*np.searchsorted(self.first, (start, stop)))
        inside = slice(*np.searchsorted(self.watched, (start, stop)))
        cut: dict[str, Any] = {name: getattr(self, name)[of_steps] for name in PER_STEP}
        cut |= {name: getattr(self, name)[inside] for name in WATCHED}
        moved = {name: cut[name] - start for name in ("first", "watched")}
        cut["facts"] = {name: column[inside] for name, column in self.facts.items()}
        parameters = self.parameters and self.parameters.between(start, stop)
        return replace(self, **cut | moved, steps=max(stop - start, 0), parameters=parameters)

    def merged(self, rows: int) -> "Record":
        """Returns the record with at most `rows` rows: every 2, 4, 8, … steps become one row.

        Counts are exact, and mean and std are those of all values, up to rounding. The loss, rate
        and momentum of a row are means over its steps; a loss that is not finite stays so. The loss
        in evaluation mode is the mean of those taken.

        Raises:
          TypeError: if rows is not a whole number.
          ValueError: if rows is below 1.
        """
        check_whole("rows", rows, 1)
        span = row_span(self.steps, rows)
        starts = np.flatnonzero(np.diff(self.first // span, prepend=-1))
        if len(starts) == len(self.first):
            return self
        first, weights = self.first[starts], self.counts.astype(np.float64)
        changed: dict[str, Any] = {
            name: mean_of_rows(getattr(self, name), weights, starts)
            for name in ("loss", "learning_rate", "momentum")
        }
        changed["first"] = first
        parameters = self.parameters and self.parameters.merged(first)
        return replace(self, **changed | self._merged_statistics(first), parameters=parameters)

    def _merged_statistics(self, first: Int[np.ndarray, " G"]) -> dict[str, Any]:
        """Returns the fields of the watched steps, in rows that begin at the steps `first`."""
        if not len(self.watched):
            return {}
        starts = group_starts(first, self.watched)
        # A field without rows was not recorded.
        kept: list[Any] = [c if len(c := getattr(self, name)) else None for name in _STATS]
        merged = merge_rows(ActivationStats(*kept), self.values, starts)
        columns = {name: column for name, column in merged._asdict().items() if column is not None}
        counts = np.add.reduceat(self.watched_count, starts)
        if len(self.eval_loss):
            taken = self.watched_count * ~np.isnan(self.eval_loss)
            columns["eval_loss"] = mean_of_rows(self.eval_loss, taken, starts)
        if len(self.counted):
            columns["counted"] = np.add.reduceat(self.counted, starts)
        columns["facts"] = merge_facts(self.facts, self.watched_count, starts)
        return {"watched": self.watched[starts], "watched_count": counts, **columns}


def check_record(name: str, value: Any) -> None:
    """Raises TypeError if an argument is not a record."""
    fix = "Trainer.run returns one, Recorder.record() makes one, Record.load reads one."
    check_type(name, value, Record, fix)
