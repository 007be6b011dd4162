"""How a record comes to be: from the arrays of steps, piece by piece, within a bound."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convjax.stats.activations import HIST_BINS, ActivationStats
from convjax.stats.parameters import ParameterRecord
from convjax.stats.record import PER_STEP, WATCHED, Array, Record

# As many columns as a picture has pixels.
MAX_ROWS = 1024


class RecordBuilder:
    """A record that grows by pieces and keeps at most so many rows.

    Args:
      rows: at least 1.

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
        """Adds the record of the steps after those so far."""
        self._pieces.append(piece)
        # At twice the rows, so that a row is merged but once for each doubling of the steps.
        if sum(len(piece.first) for piece in self._pieces) > 2 * self.rows:
            self._pieces = [self.record()]

    def whole(self) -> Record:
        """Returns the record as it has grown, which may have up to twice as many rows: added to a
        new one, it grows on to the same bits.

        Raises:
          ValueError: if there is none.
        """
        return concatenate(self._pieces)

    def record(self) -> Record:
        """Returns the record of all steps so far, in at most `rows` rows.

        Raises:
          ValueError: if there is none.
        """
        return self.whole().merged(self.rows)


def from_steps(
    layers: Iterable[str],
    sizes: Iterable[int],
    loss: Array,
    learning_rate: Array,
    momentum: Array,
    watched: Array,
    stats: Sequence[ActivationStats],
    *,
    parameters: ParameterRecord | None = None,
    eval_loss: Array | None = None,
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

    columns = {name: column(name) for name in ActivationStats._fields if name != "active"}
    units = [np.asarray(layer.active) for layer in stats if layer.active is not None]
    packed = np.packbits(np.concatenate(units, axis=1), axis=1) if units else None
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
        channels=np.array([active.shape[1] for active in units], np.int64),
        active=np.zeros((0, 0), np.uint8) if packed is None else packed,
        eval_loss=np.zeros(0, np.float32) if eval_loss is None else np.asarray(eval_loss),
        parameters=parameters,
        **columns,
    )


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
    kept = {
        tuple(len(getattr(records[i], name)) > 0 for name in ("hist", "active", "eval_loss"))
        for i in with_layers
        if len(records[i].watched)
    }
    if len(layers) > 1 or len(kept) > 1:
        raise ValueError(
            "records must be of one training: the same layers of the same sizes, and all of them "
            "with histograms, units and evaluation or none."
        )

    def joined(name: str, indices: Sequence[int]) -> Array:
        columns = [getattr(records[i], name) for i in indices]
        if name in ("first", "watched"):  # steps, counted from the start of all
            columns = [column + before[i] for column, i in zip(columns, indices, strict=True)]
        return np.concatenate(columns)

    everyone = range(len(records))
    of_layers = with_layers or everyone
    changed: dict[str, Any] = {name: joined(name, everyone) for name in PER_STEP}
    changed |= {name: joined(name, of_layers) for name in WATCHED}
    changed["steps"] = int(before[-1])
    of_parameters = [
        (r.parameters, b) for r, b in zip(records, before, strict=False) if r.parameters
    ]
    if of_parameters:
        changed["parameters"] = ParameterRecord.joined(*map(list, zip(*of_parameters, strict=True)))
    return replace(records[of_layers[0]], **changed)
