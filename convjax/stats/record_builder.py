"""Building of records: from the arrays of steps, piece by piece, with a bound on the rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from convjax.nn.outputs import LayerKind
from convjax.stats.activations import ActivationStats
from convjax.stats.bins import Bins, as_bins
from convjax.stats.facts import join_facts
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import PER_STEP, WATCHED, Record

# About as many columns as a figure has pixels.
MAX_ROWS = 1024


class RecordBuilder:
    """A record that grows piece by piece and has at most a given number of rows.

    Args:
      rows: the bound, at least 1.

    Raises:
      ValueError: if rows is below 1.
    """

    def __init__(self, rows: int = MAX_ROWS):
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}.")
        self.rows = rows
        self._pieces: list[Record] = []  # the first of them merged, where there were many

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, piece: Record) -> None:
        """Adds the record of the next steps.

        Raises:
          ValueError: if its bins differ from those of the pieces so far.
        """
        before = next((p for p in self._pieces if p.layers), piece)
        _check_same_bins([before, piece])
        self._pieces.append(piece)
        # At twice the rows, so that a row is merged only once for each doubling of the steps.
        if sum(len(piece.first) for piece in self._pieces) > 2 * self.rows:
            self._pieces = [self.record()]

    def whole(self) -> Record:
        """Returns the record with up to twice as many rows as the bound.

        A new builder that starts with it continues to the same bits.

        Raises:
          ValueError: if nothing was added yet.
        """
        return concatenate(self._pieces)

    def record(self) -> Record:
        """Returns the record of all steps so far, in at most `rows` rows.

        Raises:
          ValueError: if nothing was added yet.
        """
        return self.whole().merged(self.rows)


def from_steps(
    layers: Iterable[str],
    sizes: Iterable[int],
    loss: Float[np.ndarray, " R"],
    learning_rate: Float[np.ndarray, " R"],
    momentum: Float[np.ndarray, " R"],
    watched: Int[np.ndarray, " S"] | Sequence[int],
    stats: Sequence[ActivationStats],
    *,
    parameters: ParameterRecord | None = None,
    eval_loss: Float[np.ndarray, " S"] | None = None,
    bins: Bins | str = "fastai",
    facts: Mapping[str, Float[np.ndarray, " S"]] | None = None,
    kinds: Sequence[LayerKind] = (),
) -> Record:
    """Returns the record of arrays whose first axis is the step, with one row per step.

    Args:
      layers: names.
      sizes: values per layer and step.
      loss: of each step.
      learning_rate: of each step.
      momentum: of each step.
      watched: the steps at which statistics were taken.
      stats: of each layer, at these steps.
      parameters: the record of the parameters.
      eval_loss: of the watched steps, in evaluation mode.
      bins: of the histograms in stats.
      facts: of the watched steps, by name.
      kinds: of the layers.
    """
    units = [np.asarray(layer.active) for layer in stats if layer.active is not None]
    stacked: Any = None
    if stats:
        columns: list[Any] = [
            None if column[0] is None else np.stack([np.asarray(c) for c in column], axis=1)
            for column in zip(*(layer._replace(active=None) for layer in stats), strict=True)
        ]
        stacked = ActivationStats(*columns)
    return from_columns(
        layers,
        np.array(list(sizes), np.int64),
        loss,
        learning_rate,
        momentum,
        watched,
        stacked,
        tuple(active.shape[1] for active in units),
        np.concatenate(units, axis=1) if units else None,
        parameters=parameters,
        eval_loss=eval_loss,
        bins=bins,
        facts=facts,
        kinds=kinds,
    )


def from_columns(
    layers: Iterable[str],
    sizes: Int[np.ndarray, " L"],
    loss: Float[np.ndarray, " R"],
    learning_rate: Float[np.ndarray, " R"],
    momentum: Float[np.ndarray, " R"],
    watched: Int[np.ndarray, " S"] | Sequence[int],
    stats: ActivationStats | None,
    channels: Sequence[int] = (),
    units: Bool[np.ndarray, "S C"] | None = None,
    *,
    counted: Int[np.ndarray, "S L"] | None = None,
    parameters: ParameterRecord | None = None,
    eval_loss: Float[np.ndarray, " S"] | None = None,
    bins: Bins | str = "fastai",
    facts: Mapping[str, Float[np.ndarray, " S"]] | None = None,
    kinds: Sequence[LayerKind] = (),
) -> Record:
    """Returns the record of arrays whose first axis is the step and whose second is the layer.

    Args:
      layers: as for `from_steps`, like the other arguments that are not listed here.
      sizes: likewise.
      loss: likewise.
      learning_rate: likewise.
      momentum: likewise.
      watched: likewise.
      stats: of all layers, at these steps; `active` is not used. None without layers.
      channels: the number of each layer, if there are units.
      units: whether each channel was active, layer after layer.
      counted: the number of values, if it differs from `sizes` at some step.
      parameters: likewise.
      eval_loss: likewise.
      bins: likewise.
      facts: likewise.
      kinds: likewise.
    """
    edges, names = as_bins(bins).edges, tuple(layers)

    def column(name: str) -> Any:
        value = None if stats is None else getattr(stats, name)
        if value is not None:
            return value
        shape = (len(edges) - 1,) if name == "hist" else ()
        dtype = np.int32 if name in ("hist", "under", "over") else np.float32
        return np.zeros((len(watched) if stats is None else 0, len(names), *shape), dtype)

    columns = {name: column(name) for name in ActivationStats._fields if name != "active"}
    return Record(
        layers=names,
        sizes=sizes,
        counted=np.zeros((0, 0), np.int64) if counted is None else counted,
        steps=len(loss),
        first=np.arange(len(loss)),
        loss=np.asarray(loss),
        learning_rate=np.asarray(learning_rate),
        momentum=np.asarray(momentum),
        watched=np.asarray(watched, np.int64),
        watched_count=np.ones(len(watched), np.int64),
        channels=np.array(channels, np.int64),
        active=np.zeros((0, 0), np.uint8) if units is None else np.packbits(units, axis=1),
        eval_loss=np.zeros(0, np.float32) if eval_loss is None else np.asarray(eval_loss),
        parameters=parameters,
        hist_edges=edges,
        facts=dict(facts or {}),
        kinds=tuple(kinds),
        **columns,
    )


def concatenate(records: Sequence[Record]) -> Record:
    """Joins records of successive steps of one training; some of them may have no statistics.

    Their batches may have several sizes. The loss in evaluation mode is NaN where it was not taken.

    Raises:
      ValueError: if there is no record, or their layers, quantities or bins differ.
    """
    if not records:
        raise ValueError("records must hold at least one record, got none.")
    before = np.cumsum([0, *(record.steps for record in records)]).tolist()
    with_layers = [i for i, record in enumerate(records) if record.layers]
    layers = {records[i].layers for i in with_layers}
    kept = {
        (*(len(getattr(records[i], name)) > 0 for name in ("hist", "active")), *records[i].channels)
        for i in with_layers
        if len(records[i].watched)
    }
    if len(layers) > 1 or len(kept) > 1:
        raise ValueError(
            "records must be of one training: the same layers with the same channels, and all of "
            "them with histograms and units or none."
        )
    _check_same_bins(records)

    def joined(name: str, indices: Sequence[int]) -> Any:
        columns = [getattr(records[i], name) for i in indices]
        if name in ("first", "watched"):  # steps, counted from the start of all
            columns = [column + before[i] for column, i in zip(columns, indices, strict=True)]
        return np.concatenate(columns)

    every_record = range(len(records))
    of_layers = with_layers or every_record
    changed: dict[str, Any] = {name: joined(name, every_record) for name in PER_STEP}
    changed |= {name: joined(name, of_layers) for name in WATCHED if name not in _PARTIAL}
    changed |= _joined_partly([records[i] for i in of_layers])
    changed["facts"] = join_facts([(records[i].facts, len(records[i].watched)) for i in of_layers])
    changed["steps"] = before[-1]
    of_parameters = [
        (r.parameters, b) for r, b in zip(records, before, strict=False) if r.parameters
    ]
    if of_parameters:
        changed["parameters"] = ParameterRecord.joined(*map(list, zip(*of_parameters, strict=True)))
    return replace(records[of_layers[0]], **changed)


# Fields that some of the rows of one training may lack.
_PARTIAL = ("counted", "eval_loss")


def _joined_partly(records: Sequence[Record]) -> dict[str, Any]:
    """Returns the joined fields `_PARTIAL`, without rows if no record has rows of them."""
    found = {name: getattr(records[0], name) for name in _PARTIAL}
    sizes = {tuple(record.sizes) for record in records if len(record.watched)}
    if len(sizes) > 1 or any(len(record.counted) for record in records):
        found["counted"] = np.concatenate([record.values for record in records])
    if any(len(record.eval_loss) for record in records):
        lacking = (np.full(len(r.watched), np.nan, r.loss.dtype) for r in records)
        columns = zip(records, lacking, strict=True)
        found["eval_loss"] = np.concatenate(
            [r.eval_loss if len(r.eval_loss) else lacks for r, lacks in columns]
        )
    return found


def _check_same_bins(records: Sequence[Record]) -> None:
    """Raises ValueError if records with layers differ in bins or in the threshold near zero."""
    records = [record for record in records if record.layers]
    for record in records[1:]:
        before, edges = records[0].hist_edges, record.hist_edges
        if not np.array_equal(before, edges):
            raise ValueError(
                f"records must have the same hist_edges, got {_in_words(edges)} after "
                f"{_in_words(before)}. Train with the same Watch(bins=...)."
            )
        if record.near_zero_threshold != records[0].near_zero_threshold:
            raise ValueError(
                "records must have the same near_zero_threshold, got "
                f"{record.near_zero_threshold} after {records[0].near_zero_threshold}."
            )


def _in_words(edges: Float[np.ndarray, " E"]) -> str:
    return f"{len(edges) - 1} bins from {edges[0]:g} to {edges[-1]:g}"
