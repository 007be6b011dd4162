"""The statistics of one step on the host, with the members of an ensemble merged.

Members are what stands on axes before that of the layers: `jax.vmap` over an ensemble, `jax.pmap`
and `jax.shard_map` leave such axes.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from convjax.nn.outputs import LayerKind
from convjax.stats.activations import ActivationStats
from convjax.stats.bins import Bins
from convjax.stats.facts import join_facts, merge_members
from convjax.stats.layers import LayerStats
from convjax.stats.merging import count_dtype, merge_rows
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.parameters import Described, Norms, ParameterStats
from convjax.stats.record import Record
from convjax.stats.record_builder import from_columns


class StepLayers(NamedTuple):
    """The statistics of L layers at one step, as if taken of the values of all members.

    Attributes:
      stats: every field has the first axis L; without `active`.
      sizes: number of values.
      channels: number of each layer; empty without units.
      units: whether a channel of any member was active, layer after layer; None without units.
      facts: of the batch, by name.
    """

    stats: ActivationStats
    sizes: Int[np.ndarray, " L"]
    channels: tuple[int, ...]
    units: Bool[np.ndarray, " C"] | None
    facts: dict[str, float]


class StepParameters(NamedTuple):
    """The statistics of P parameters at one step: as `convjax.stats.ParameterRecord` merges steps.

    Attributes:
      stats: the root mean square of the members' norms, and their summed counts.
      members: their number.
    """

    stats: Norms
    members: int


class Numbers(NamedTuple):
    """The numbers of a step: of all members, or their means."""

    loss: Any
    learning_rate: Any
    momentum: Any
    eval_loss: Any


class StepRow(NamedTuple):
    """A step of a record: its numbers, and its statistics where they were taken."""

    numbers: Numbers
    layers: StepLayers | None
    parameters: StepParameters | None


def layer_row(
    layers: LayerStats,
    columns: Int[np.ndarray, " L"] | None = None,
    quantities: Sequence[str] = ("histograms", "units"),
) -> StepLayers:
    """Returns the row of a step's layers.

    Args:
      layers: arrays of NumPy, or of JAX, which are then fetched.
      columns: the layers to keep, in their order; all by default.
      quantities: "histograms" and "units", or those of them to keep.
    """
    lead = np.ndim(layers.stats.mean) - 1
    stats = ActivationStats(
        *(None if c is None else _selected(c, lead, columns) for c in layers.stats[:7])  # type: ignore[arg-type]
    )
    sizes = np.array(layers.sizes, np.int64)
    channels: tuple[int, ...] = layers.channels
    units: Any = None
    if layers.units is not None and "units" in quantities:
        units = np.asarray(layers.units).reshape(-1, sum(channels)).any(0)
    if columns is not None:
        sizes = sizes[columns]
        if units is not None:
            of_layers = np.split(units, np.cumsum(channels)[:-1])
            units = np.concatenate([of_layers[i] for i in columns])
            channels = tuple(channels[i] for i in columns)
    members = len(stats.mean)
    if members > 1:
        stats = merge_rows(stats, sizes, [0])
    if "histograms" not in quantities:
        stats = stats._replace(hist=None, under=None, over=None)
    first: Any = (None if column is None else column[0] for column in stats)
    facts = {name: np.asarray(value).reshape(-1) for name, value in layers.facts.items()}
    merged = {name: float(value) for name, value in merge_members(facts).items()}
    return StepLayers(
        ActivationStats(*first),
        sizes * members,
        channels if units is not None else (),
        units,
        merged,
    )


def parameter_row(
    parameters: ParameterStats,
    columns: Int[np.ndarray, " P"] | None = None,
    quantities: Sequence[str] | None = None,
) -> StepParameters:
    """Returns the row of a step's parameters.

    Args:
      parameters: arrays of NumPy, or of JAX, which are then fetched.
      columns: the parameters to keep, in their order; all by default.
      quantities: names of the fields of the statistics to keep; all by default.
    """
    lead = np.ndim(parameters.stats.weight_norm) - 1
    found: dict[str, Any] = {
        name: _selected(column, lead, columns)
        for name, column in parameters.stats._asdict().items()
        if column is not None and (quantities is None or name in quantities)
    }
    members = len(found["weight_norm"])
    largest = max(parameters.of.sizes) * members
    for name, column in found.items():
        if members == 1:
            found[name] = column[0]
        elif name.endswith("norm"):
            found[name] = _root_mean_square(column)
        else:
            found[name] = column.sum(0, dtype=count_dtype(largest))
    stats: dict[str, Any] = dict.fromkeys(Norms._fields)
    return StepParameters(Norms(**stats | found), members)


def mean_of_members(number: Any) -> float:
    """Returns the mean of the members' losses or rates; NaN for none."""
    found = np.asarray(number, np.float64)
    with np.errstate(invalid="ignore"):
        return float(found.sum() / np.float64(found.size)) if found.ndim else float(found)


def record_of_rows(
    rows: Sequence[StepRow],
    names: Sequence[str],
    sizes: Int[np.ndarray, " L"] | None,
    of: Described | None,
    bins: Bins,
    kinds: Sequence[LayerKind] = (),
) -> Record:
    """Returns the record of successive steps.

    Args:
      rows: of the steps, which have the same quantities where they have statistics.
      names: of the layers.
      sizes: of the layers at the first watched step of the training.
      of: the parameters.
      bins: of the histograms.
      kinds: of the layers.
    """
    numbers = Numbers(*np.array([row.numbers for row in rows], np.float32).T)
    layers = [(i, row.layers) for i, row in enumerate(rows) if row.layers]
    parameters = [(i, row.parameters) for i, row in enumerate(rows) if row.parameters]
    watched, found = np.array([i for i, _ in layers], int), [row for _, row in layers]
    counted = np.stack([row.sizes for row in found]) if found else None
    if counted is not None and (counted == sizes).all():
        counted = None
    units = [row.units for row in found if row.units is not None]
    eval_loss = numbers.eval_loss[watched]
    parameter_record = None
    if parameters and of is not None:
        parameter_record = ParameterRecord.from_steps(
            of,
            np.array([i for i, _ in parameters]),
            _stacked([row.stats for _, row in parameters]),
            np.array([row.members for _, row in parameters]),
        )
    return from_columns(
        names if found else (),
        np.zeros(0, np.int64) if sizes is None or not found else sizes,
        numbers.loss,
        numbers.learning_rate,
        numbers.momentum,
        watched,
        _stacked([row.stats for row in found]) if found else None,
        found[0].channels if found else (),
        np.stack(units) if units else None,
        counted=counted,
        parameters=parameter_record,
        eval_loss=None if np.isnan(eval_loss).all() else eval_loss,
        bins=bins,
        facts=join_facts([({n: [v] for n, v in row.facts.items()}, 1) for row in found]),
        kinds=kinds if found else (),
    )


def _stacked(steps: Sequence[Any]) -> Any:
    """Returns named tuples of arrays or None as one, with the step as the first axis."""
    columns = zip(*steps, strict=True)
    return type(steps[0])(*(None if c[0] is None else np.stack(c) for c in columns))


def _selected(column: Any, lead: int, columns: Int[np.ndarray, " L"] | None) -> Any:
    """Returns a field with the members on one axis, (members, L, …), and the chosen columns."""
    found = np.asarray(column)
    found = found.reshape(math.prod(found.shape[:lead]), *found.shape[lead:])
    return found if columns is None else found[:, columns]


def _root_mean_square(norm: Any) -> Float[np.ndarray, " P"]:
    with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
        mean = np.mean(np.asarray(norm, np.float64) ** 2, axis=0)
        return np.asarray(np.sqrt(mean).astype(np.float32))
