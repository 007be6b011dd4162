"""Statistics from a custom training loop: returned by the jitted step, collected in a record."""

from collections.abc import Sequence
from itertools import zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np

from convjax._checks import check_scalar, check_whole
from convjax.stats.activations import ActivationStats
from convjax.stats.bins import FASTAI, Bins
from convjax.stats.layers import LayerStats
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.parameters import ParameterStats
from convjax.stats.record import Record
from convjax.stats.record_builder import MAX_ROWS, RecordBuilder, from_steps

# Steps are fetched from the device in blocks of this many, one block late: the device has finished
# them by then, and no step waits for the host.
BLOCK = 64


class _Added(NamedTuple):
    """A step whose values are not yet fetched from the device."""

    scalars: tuple[Any, ...]  # loss, learning rate, momentum
    layers: LayerStats | None
    parameters: ParameterStats | None
    eval_loss: Any


class _Kind(NamedTuple):
    """The layers and quantities, which must be the same at all watched steps."""

    sizes: dict[str, int]  # by layer
    histograms: bool
    units: bool
    evaluated: bool
    bins: Bins


class Recorder:
    """Collects the statistics that the steps of a training loop return, without blocking them.

    The record has at most `rows` rows, however long the training: when there are more, neighbouring
    steps are merged, see `Record.merged`.

    Args:
      rows: the bound on the rows of the record, at least 1.

    Raises:
      TypeError: if rows is not a whole number.
      ValueError: if rows is below 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from convjax import Recorder, layer_stats
      >>> @jax.jit
      ... def train_step(weight, x):  # yours
      ...     loss, grad = jax.value_and_grad(lambda w: jnp.mean((w * x - 1) ** 2))(weight)
      ...     return weight - 0.1 * grad, loss, layer_stats({"product": weight * x})
      >>> recorder, weight = Recorder(), jnp.float32(0.0)
      >>> for x in (jnp.ones(4), jnp.ones(4)):
      ...     weight, loss, stats = train_step(weight, x)
      ...     recorder.add(loss, stats)
      >>> [round(float(mean), 3) for mean in recorder.record().mean[:, 0]]
      [0.0, 0.2]
    """

    def __init__(self, *, rows: int = MAX_ROWS):
        self._record = RecordBuilder(check_whole("rows", rows, 1))
        self._waiting: list[_Added] = []
        self._kind: _Kind | None = None
        self._parameters: tuple[Any, ...] | None = None  # the structure of their statistics

    def add(
        self,
        loss: jax.typing.ArrayLike,
        layers: LayerStats | None = None,
        parameters: ParameterStats | None = None,
        *,
        eval_loss: jax.typing.ArrayLike | None = None,
        learning_rate: jax.typing.ArrayLike = np.nan,
        momentum: jax.typing.ArrayLike = np.nan,
    ) -> None:
        """Adds a step; values on the device are fetched some steps later.

        Args:
          loss: a scalar.
          layers: what `convjax.layer_stats` returns, or None for a step that is not watched.
          parameters: what `convjax.parameter_stats` returns, or None.
          eval_loss: of the step's batch in evaluation mode; requires layers.
          learning_rate: where it is known, for the plot of the schedule.
          momentum: likewise.

        Raises:
          TypeError: if layers is not what `layer_stats` returns, parameters is not what
            `parameter_stats` returns, or the loss, rate or momentum is a tracer or not a number.
          ValueError: if one of these is not a scalar, the layers, their bins or the parameters
            differ from those of the steps before, or eval_loss is given without layers.
        """
        scalars = {"loss": loss, "learning_rate": learning_rate, "momentum": momentum}
        if eval_loss is not None:
            scalars["eval_loss"] = eval_loss
        for name, scalar in scalars.items():
            check_scalar(name, scalar)
        for name, value, cls, maker in (
            ("layers", layers, LayerStats, "layer_stats(outputs)"),
            ("parameters", parameters, ParameterStats, "parameter_stats(params, grads=grads)"),
        ):
            if not (value is None or isinstance(value, cls)):
                raise TypeError(f"{name} must be what {maker} returns, got {type(value).__name__}.")
        if layers is not None:
            layers = self._checked(layers, eval_loss is not None)
        elif eval_loss is not None:
            raise ValueError(
                "eval_loss must go with layers, got layers None. Pass layer_stats(outputs), too."
            )
        if parameters is not None:
            self._check_parameters(parameters)
        self._waiting.append(_Added((loss, learning_rate, momentum), layers, parameters, eval_loss))
        if len(self._waiting) >= 2 * BLOCK:
            self._fetch(BLOCK)

    def _check_parameters(self, parameters: ParameterStats) -> None:
        _check_one_step("parameters", "norms", parameters.stats.weight_norm, parameters.of.names)
        kept = [name for name, value in parameters.stats._asdict().items() if value is not None]
        kind = parameters.of, tuple(kept)
        self._parameters = self._parameters or kind
        if kind != self._parameters:
            before, kept_before = self._parameters
            changed = sorted(set(parameters.of.names) ^ set(before.names))
            raise ValueError(
                "parameters must be the same at all steps that have them, with the same sizes and "
                f"quantities, got {', '.join(kept)} after {', '.join(kept_before)}; names in only "
                f"one of the steps: {', '.join(changed) or 'none'}."
            )

    def _checked(self, layers: LayerStats, evaluated: bool) -> LayerStats:
        """Returns the statistics with the layers in the order of the first step."""
        _check_one_step("layers", "means", layers.stats.mean, layers.names)
        kind = _Kind(
            dict(zip(layers.names, layers.sizes, strict=True)),
            layers.stats.hist is not None,
            bool(layers.active),
            evaluated,
            layers.bins,
        )
        self._kind = self._kind or kind
        if kind != self._kind:
            pairs = zip(_Kind._fields, kind, self._kind, strict=True)
            differing = [
                f"{name} {now} after {before}" for name, now, before in pairs if now != before
            ]
            raise ValueError(
                "layers must be the same at all watched steps, with as many values, the same bins, "
                "and at all of them histograms, units and eval_loss or at none, got "
                f"{'; '.join(differing)}. Take the same statistics at every step, and drop the "
                "smaller last batch of an epoch."
            )
        names = tuple(self._kind.sizes)
        if names == layers.names:
            return layers
        # JAX sorts the keys of a mapping that enters or leaves a jitted function.
        order = [layers.names.index(name) for name in names]
        return LayerStats(
            names,
            tuple(self._kind.sizes.values()),
            jax.tree.map(itemgetter(np.array(order)), layers.stats),
            tuple(layers.active[i] for i in order) if layers.active else (),
            layers.bins,
        )

    def record(self) -> Record:
        """Returns the record of all steps so far, in at most `rows` rows.

        Raises:
          ValueError: if no step was added.
        """
        self._fetch(len(self._waiting))
        if not self._record:
            raise ValueError("the recorder has no steps yet: add(loss, layers) after each step.")
        return self._record.record()

    def _fetch(self, steps: int) -> None:
        block = jax.device_get(self._waiting[:steps])
        if not block:
            return
        found = [(i, added) for i, added in enumerate(block) if added.layers is not None]
        sizes = self._kind.sizes if self._kind and found else {}
        bins = self._kind.bins if self._kind else FASTAI
        stats: list[ActivationStats] = []
        if found:
            layers = _stacked([added.layers for _, added in found])
            stats = [
                jax.tree.map(itemgetter((slice(None), i)), layers.stats) for i in range(len(sizes))
            ]
            stats = [
                layer._replace(active=active) for layer, active in zip_longest(stats, layers.active)
            ]
        evaluated = [added.eval_loss for _, added in found if added.eval_loss is not None]
        loss, learning_rate, momentum = np.array([added.scalars for added in block], np.float32).T
        self._record.add(
            from_steps(
                sizes,
                sizes.values(),
                loss,
                learning_rate,
                momentum,
                np.array([i for i, _ in found], int),
                stats,
                parameters=_of_parameters(block),
                eval_loss=np.array(evaluated, np.float32) if evaluated else None,
                bins=bins,
            )
        )
        self._waiting = self._waiting[steps:]


def _check_one_step(what: str, values: str, found: Any, names: Sequence[str]) -> None:
    if np.shape(found) != (len(names),):
        raise ValueError(
            f"{what} must be of one step, got {values} of the shape {np.shape(found)} for "
            f"{len(names)} {what}. Add the steps of a scan one by one."
        )


def _of_parameters(block: Sequence[_Added]) -> ParameterRecord | None:
    found = [(i, added.parameters) for i, added in enumerate(block) if added.parameters is not None]
    if not found:
        return None
    whole = _stacked([stats for _, stats in found])
    watched = np.array([i for i, _ in found])
    return ParameterRecord.from_steps(whole.of, watched, whole.stats)


def _stacked(steps: list[Any]) -> Any:
    """Returns pytrees of one structure stacked into one, with the step as the first axis."""
    return jax.tree.map(lambda *values: np.stack(values), *steps)
