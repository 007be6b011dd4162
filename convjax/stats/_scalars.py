"""The newest values of a record, or those of one step, as a flat dictionary for a logger."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from convjax._checks import describe_value
from convjax.stats.layers import LayerStats
from convjax.stats.parameters import ParameterStats
from convjax.stats.record import Record
from convjax.stats.step_rows import layer_row, parameter_row

DEAD_STEPS = 100  # as of `Record.dead`


def scalars(found: Record | LayerStats | ParameterStats) -> dict[str, float]:
    """Returns the last values of a record, or the values of one step, by names with slashes.

    W&B, MLflow, Aim and CLU take such a dictionary. The statistics of a step on the device are
    waited for; log them every hundred steps or so.

    Args:
      found: a record, or what `layer_stats` or `parameter_stats` returns for one step.

    Returns:
      layers/LAYER/mean (std, near_zero), parameters/PARAMETER/weight_norm (grad_norm,
      update_ratio). From a record also loss, learning_rate, momentum, eval_loss, and
      layers/LAYER/dead, the share of channels not active in the last 100 steps. What was not
      recorded is left out; values that are not finite stay.

    Raises:
      TypeError: if found is something else, or is traced.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Recorder, layer_stats, scalars
      >>> stats = layer_stats({"conv1": jnp.array([-1.0, 3.0])}, histogram=False)
      >>> {name: round(value, 3) for name, value in scalars(stats).items()}
      {'layers/conv1/mean': 1.0, 'layers/conv1/std': 2.828, 'layers/conv1/near_zero': 0.5}
      >>> recorder = Recorder()
      >>> recorder.add(0.5, stats, learning_rate=0.25)
      >>> list(scalars(recorder.record()))[:3]
      ['loss', 'learning_rate', 'layers/conv1/mean']
    """
    if not isinstance(found, Record | LayerStats | ParameterStats):
        raise TypeError(
            "found must be a Record or what layer_stats or parameter_stats returns, got "
            f"{describe_value(found)}. Recorder.record() returns the record of a recorder."
        )
    if isinstance(found, Record):
        return dict(_of_record(found))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found)):
        raise TypeError(
            "found must have values, got a tracer: return the statistics from the jitted step, and "
            "call scalars outside."
        )
    if isinstance(found, ParameterStats):
        norms = parameter_row(found).stats
        return dict(
            _of_parameters(found.of.names, norms.weight_norm, norms.grad_norm, norms.update_norm)
        )
    if not found.names:
        return {}
    stats = layer_row(found).stats
    return dict(_of_layers(found.names, stats.mean, stats.std, stats.near_zero))


def _of_record(record: Record) -> Iterator[tuple[str, float]]:
    if record.steps:
        yield "loss", float(record.loss[-1])
    for name in ("learning_rate", "momentum", "eval_loss"):
        for value in getattr(record, name)[-1:]:
            if not np.isnan(value):  # of a step where it is not known
                yield name, float(value)
    if len(record.watched):
        last = record.mean[-1], record.std[-1], record.near_zero[-1]
        yield from _of_layers(record.layers, *last)
        yield from _dead(record)
    found = record.parameters
    if found is not None and len(found.watched):
        norms = (n[-1] if len(n) else None for n in (found.grad_norm, found.update_norm))
        yield from _of_parameters(found.names, found.weight_norm[-1], *norms)


def _of_layers(names: Sequence[str], mean: Any, std: Any, near_zero: Any) -> Iterator[Any]:
    for name, *values in zip(names, mean, std, near_zero, strict=True):
        for statistic, value in zip(("mean", "std", "near_zero"), values, strict=True):
            yield f"layers/{name}/{statistic}", float(value)


def _of_parameters(names: Sequence[str], weight: Any, grad: Any, update: Any) -> Iterator[Any]:
    with np.errstate(divide="ignore", invalid="ignore"):  # weights of zero
        ratio = None if update is None else np.asarray(update) / np.asarray(weight)
    columns = {"weight_norm": weight, "grad_norm": grad, "update_ratio": ratio}
    for i, name in enumerate(names):
        for statistic, column in columns.items():
            if column is not None:
                yield f"parameters/{name}/{statistic}", float(column[i])


def _dead(record: Record) -> Iterator[tuple[str, float]]:
    """Yields the last value of `Record.dead` of every layer, for which it unpacks all rows."""
    if not len(record.active) or record.steps < DEAD_STEPS:
        return
    ends = np.append(record.watched[1:], record.steps)
    recent = record.active[np.searchsorted(ends, record.steps - DEAD_STEPS, side="right") :]
    bits = np.unpackbits(np.bitwise_or.reduce(recent, axis=0), count=int(record.channels.sum()))
    of_layers = np.split(bits, np.cumsum(record.channels)[:-1])
    for name, active in zip(record.layers, of_layers, strict=True):
        yield f"layers/{name}/dead", float(1 - active.mean())
