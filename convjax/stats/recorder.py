"""Statistics from a custom training loop: returned by the jitted step, collected in a record."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar, overload

import jax
import numpy as np
from jaxtyping import Int

from convjax._checks import check_real, check_type, check_whole
from convjax._warnings import warn_user
from convjax.nn.outputs import LayerKind
from convjax.stats._watched_program import WatchedProgram
from convjax.stats.bins import FASTAI
from convjax.stats.block_builder import BlockBuilder
from convjax.stats.first_step import Traits, fit, traits_of_layers, traits_of_parameters
from convjax.stats.layers import LayerStats
from convjax.stats.parameters import Described, ParameterStats
from convjax.stats.record import Record
from convjax.stats.record_builder import MAX_ROWS
from convjax.stats.step_rows import (
    Numbers,
    StepRow,
    layer_row,
    mean_of_members,
    parameter_row,
    record_of_rows,
)
from convjax.stats.watch import Watch
from convjax.stats.watched_step import Step

S = TypeVar("S", bound=Step)

# Steps that become part of the record at once; a power of two.
BLOCK = 16

# A step is converted when the device has finished it. If it is this many steps behind, `add` waits
# for one of them, so that memory is bounded.
MOST_WAITING = 64


class _Added(NamedTuple):
    """What was added and is not yet converted: steps whose values may still be on the device."""

    numbers: Numbers
    layers: LayerStats | None
    layer_columns: Int[np.ndarray, " L"] | None
    parameters: ParameterStats | None
    parameter_columns: Int[np.ndarray, " P"] | None
    steps: int | None  # on the first axis of everything

    def arrays(self) -> list[Any]:
        """Returns the arrays of JAX."""
        leaves = jax.tree.leaves((self.numbers, self.layers, self.parameters))
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]


class Recorder:
    """Collects the statistics that the steps of a training loop return, without blocking them.

    The record has at most `rows` rows, however long the training: when there are more, neighbouring
    steps are merged, see `Record.merged`. Batches may have several sizes, such as a smaller last
    one. Layers, parameters and quantities are those of the first step that has them; what does not
    fit is left out with a warning, and the loss is recorded anyway.

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
      >>> recorder
      Recorder(2 steps, 1 layers)

      Steps within `jax.lax.scan`, one of which `step` takes:

      >>> def step(weight, x):
      ...     weight, *found = train_step(weight, x)
      ...     return weight, found
      >>> weight, (losses, stats) = jax.lax.scan(step, weight, jnp.ones((3, 4)))
      >>> recorder.add(losses, stats, steps=True)
      >>> recorder
      Recorder(5 steps, 1 layers)

      The members of an ensemble are one row together. To keep them apart, each has a recorder:

      >>> weights, losses, stats = jax.vmap(train_step, (0, None))(jnp.arange(2.0), jnp.ones(4))
      >>> members = [Recorder() for _ in weights]
      >>> for i, member in enumerate(members):
      ...     member.add(*jax.tree.map(lambda v: v[i], (losses, stats)))
      >>> [member.record().mean.tolist() for member in members]
      [[[0.0]], [[1.0]]]
    """

    def __init__(self, *, rows: int = MAX_ROWS):
        self._builder = BlockBuilder(check_whole("rows", rows, 1))
        self._waiting: deque[_Added] = deque()
        self._rows: list[StepRow] = []  # less than a block
        self._merging = False  # whether the builder may have parts to merge
        self._steps = 0
        self._layers: Traits | None = None
        self._kinds: tuple[LayerKind, ...] = ()
        self._parameters: Traits | None = None
        self._described: Described | None = None
        self._sizes: Int[np.ndarray, " L"] | None = None  # of the first watched step
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        layers = 0 if self._layers is None else len(self._layers.entries)
        return f"Recorder({self._steps:,} steps, {layers:,} layers)"

    def add(
        self,
        loss: jax.typing.ArrayLike,
        layers: LayerStats | None = None,
        parameters: ParameterStats | None = None,
        *,
        eval_loss: jax.typing.ArrayLike | None = None,
        learning_rate: jax.typing.ArrayLike = np.nan,
        momentum: jax.typing.ArrayLike = np.nan,
        steps: bool = False,
    ) -> None:
        """Adds a step; values on the device are fetched when it has finished the step.

        Arguments may have further axes before those of one step, such as that of an ensemble of
        `jax.vmap` or of devices. All members are then one row: the means of loss, rate and
        momentum; layers as if all their values were one batch; and the root mean square of the
        norms of parameters, whose counts are added and whose members count as steps do.

        Args:
          loss: a number, or that of each member.
          layers: what `convjax.layer_stats` returns, or None for a step that is not watched.
          parameters: what `convjax.parameter_stats` returns, or None. A step whose gradients are
            only accumulated (`applied` is False) is left out of the record of parameters.
          eval_loss: of the step's batch in evaluation mode, at some steps or all; with layers.
          learning_rate: where it is known, for the plot of the schedule.
          momentum: likewise.
          steps: whether the first axis of loss, layers, parameters and eval_loss is that of
            successive steps, as `jax.lax.scan` stacks them. The rate and momentum may have it, too.

        Raises:
          TypeError: if layers is not what `layer_stats` returns, parameters is not what
            `parameter_stats` returns, or an argument is a tracer, or a loss, rate or momentum not a
            number.
          ValueError: with steps=True, if loss, layers, parameters or eval_loss lacks the axis, or
            its length is another.
        """
        given = {"loss": loss, "learning_rate": learning_rate, "momentum": momentum}
        if eval_loss is not None:
            given["eval_loss"] = eval_loss
        for name, number in given.items():
            check_real(name, number)
        for name, value, cls, maker in (
            ("layers", layers, LayerStats, "layer_stats(outputs)"),
            ("parameters", parameters, ParameterStats, "parameter_stats(params, grads=grads)"),
        ):
            if not (value is None or isinstance(value, cls)):
                raise TypeError(f"{name} must be what {maker} returns, got {type(value).__name__}.")
            if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
                check_real(name, jax.tree.leaves(value)[0])
        layers = layers if layers is not None and layers.names else None
        parameters = parameters if parameters is not None and parameters.of.names else None
        length = _length(loss, layers, parameters, eval_loss) if steps else None
        columns = parameter_columns = None
        has_layers = layers is not None
        if layers is not None:
            traits = traits_of_layers(layers)
            if self._layers is None:
                self._layers, self._kinds = traits, layers.kinds
            fits, columns = self._fit(self._layers, traits)
            layers = layers if fits else None
        if parameters is not None:
            traits = traits_of_parameters(parameters)
            self._parameters = self._parameters or traits
            self._described = self._described or parameters.of
            fits, parameter_columns = self._fit(self._parameters, traits)
            parameters = parameters if fits else None
        if eval_loss is not None and not has_layers:
            self._warn(
                "eval_loss",
                "eval_loss must go with layers, got layers None. The eval_loss of such a step is "
                "left out. Pass layer_stats(outputs), too.",
            )
        added = _Added(
            Numbers(loss, learning_rate, momentum, eval_loss),
            layers,
            columns,
            parameters,
            parameter_columns,
            length,
        )
        for array in added.arrays():
            if _readable(array):
                array.copy_to_host_async()
        self._waiting.append(added)
        self._steps += 1 if length is None else length
        self._convert_finished()

    @overload
    def watch(
        self,
        step: S,
        *,
        jit: Callable[..., Any] | None = None,
        watch: Watch | None = None,
        loss: Callable[[Any], jax.Array] | None = None,
        labels: Callable[..., jax.Array] | None = None,
    ) -> S: ...
    @overload
    def watch(
        self,
        step: None = None,
        *,
        jit: Callable[..., Any] | None = None,
        watch: Watch | None = None,
        loss: Callable[[Any], jax.Array] | None = None,
        labels: Callable[..., jax.Array] | None = None,
    ) -> Callable[[S], S]: ...
    def watch(
        self,
        step: Callable[..., Any] | None = None,
        *,
        jit: Callable[..., Any] | None = None,
        watch: Watch | None = None,
        loss: Callable[[Any], jax.Array] | None = None,
        labels: Callable[..., jax.Array] | None = None,
    ) -> Any:
        """Returns a compiled training step whose statistics this recorder gets.

        Use it in place of `nnx.jit`, `jax.jit` or `eqx.filter_jit`. The step is called as before,
        and its results are the same. See `convjax.watch_step` for what is recorded. What cannot be
        recorded is left out with a warning, and the training goes on.

        Args:
          step: takes one training step, not compiled; None if this is a decorator with arguments.
          jit: compiles the step, such as `functools.partial(jax.jit, donate_argnums=0)`. By default
            it is that of the library whose models are among the arguments.
          watch: the quantities and steps; by default `Watch.everything()` at every step. With
            every=8, seven of eight steps run the step's own program. The loss in evaluation mode
            takes a forward pass and a program of its own, at every 32nd step.
          loss: as for `convjax.watch_step`.
          labels: likewise.

        Raises:
          TypeError: if an argument is of another type.

        Examples:
          >>> import convjax, jax, jax.numpy as jnp, optax
          >>> recorder, optimizer = convjax.Recorder(), optax.sgd(0.1)
          >>> @recorder.watch  # instead of jax.jit
          ... def train_step(params, opt_state, x):
          ...     loss, grads = jax.value_and_grad(lambda p: jnp.mean(p["w"] * x - 1))(params)
          ...     updates, opt_state = optimizer.update(grads, opt_state, params)
          ...     return optax.apply_updates(params, updates), opt_state, loss
          >>> params = {"w": jnp.float32(0.0)}
          >>> params, _, loss = train_step(params, optimizer.init(params), jnp.ones(4))
          >>> round(float(recorder.record().parameters.update_norm[0, 0]), 3)
          0.1
        """
        if watch is not None:
            check_type("watch", watch, Watch, "Pass Watch.everything() or another Watch.")
        options: dict[str, Any] = {"jit": jit, "watch": watch, "loss": loss, "labels": labels}
        if step is None:
            return partial(self.watch, **options)
        return WatchedProgram(
            self.add, step, jit=jit, watch=watch or Watch.everything(), loss=loss, labels=labels
        )

    def record(self) -> Record:
        """Returns the record of all steps so far, in at most `rows` rows.

        Raises:
          ValueError: if no step was added.
        """
        while self._waiting:
            self._convert(self._waiting.popleft())
        if not self._steps:
            raise ValueError(
                "the recorder has no steps yet. Call the watched step, or add(loss, layers) after "
                "each step of your own."
            )
        return self._builder.record(self._block() if self._rows else None)

    def _fit(self, first: Traits, now: Traits) -> tuple[bool, Int[np.ndarray, " L"] | None]:
        """Returns whether a step's statistics fit, and their columns to keep."""
        fits, columns, complaints = fit(first, now)
        for kind, complaint in complaints.items():
            self._warn(f"{first.what} {kind}", complaint)
        return fits, columns

    def _warn(self, kind: str, message: str) -> None:
        """Warns once of each kind: a training of a million steps must not print as many lines."""
        if kind not in self._warned:
            self._warned.add(kind)
            warn_user(f"{message} (Step {self._steps:,}.)")

    # --- from the device to the record ---------------------------------------------------------

    def _convert_finished(self) -> None:
        """Converts the oldest steps that wait, at most two, so that no step takes long."""
        for _ in range(min(2, len(self._waiting))):
            # Without waiting for the device, unless it is far behind.
            finished = all(a.is_deleted() or a.is_ready() for a in self._waiting[0].arrays())
            if finished or len(self._waiting) > MOST_WAITING:
                self._convert(self._waiting.popleft())

    def _convert(self, added: _Added) -> None:
        numbers, layers, parameters = (
            Numbers(*(self._fetched("losses and rates", n, np.nan) for n in added.numbers)),
            self._fetched("layers", added.layers),
            self._fetched("parameters", added.parameters),
        )
        if added.steps is None:
            self._add_row(added, numbers, layers, parameters)
        for i in range(added.steps or 0):
            of_step = Numbers(*(n[i] if np.shape(n)[:1] == (added.steps,) else n for n in numbers))
            self._add_row(added, of_step, *_step((layers, parameters), i))

    def _fetched(self, name: str, value: Any, missing: Any = None) -> Any:
        """Returns a tree with arrays of NumPy, or `missing` if they cannot be read."""
        arrays = [leaf for leaf in jax.tree.leaves(value) if isinstance(leaf, jax.Array)]
        if all(map(_readable, arrays)):
            return missing if value is None else jax.tree.map(np.asarray, value)
        self._warn(
            f"{name} unreadable",
            f"{name} must be arrays that this process can read, got some that were donated to a "
            "later step, or are spread over several processes. They are left out. Return copies "
            "(jnp.copy) from the step, with the same value in every process.",
        )
        return missing

    def _add_row(
        self,
        added: _Added,
        numbers: Numbers,
        layers: LayerStats | None,
        parameters: ParameterStats | None,
    ) -> None:
        row = parameter = None
        if layers is not None and self._layers is not None:
            row = layer_row(layers, added.layer_columns, self._layers.quantities)
            self._sizes = row.sizes if self._sizes is None else self._sizes
        # Updates of 0 of a step that only accumulates gradients would be taken for those of all.
        applied = getattr(parameters, "applied", None)
        if parameters is not None and (applied is None or np.all(applied)):
            quantities = None if self._parameters is None else self._parameters.quantities
            parameter = parameter_row(parameters, added.parameter_columns, quantities)
        self._rows.append(StepRow(Numbers(*map(mean_of_members, numbers)), row, parameter))
        if len(self._rows) == BLOCK:
            self._builder.add(self._block())
            self._rows, self._merging = [], True
        elif self._merging:
            self._merging = self._builder.merge_pair()

    def _block(self) -> Record:
        """Returns the record of the steps that are not yet part of a block."""
        layers, bins = self._layers, None if self._layers is None else self._layers.bins
        names = () if layers is None else tuple(layers.entries)
        return record_of_rows(
            self._rows, names, self._sizes, self._described, bins or FASTAI, self._kinds
        )


def _length(
    loss: Any, layers: LayerStats | None, parameters: ParameterStats | None, eval_loss: Any
) -> int:
    """Returns the length of the first axis of everything.

    Raises:
      ValueError: if one of them lacks the axis, or the lengths differ.
    """
    shapes = {"loss": np.shape(loss)}
    if layers is not None:
        shapes["layers"] = np.shape(layers.stats.mean)[:-1]
    if parameters is not None:
        shapes["parameters"] = np.shape(parameters.stats.weight_norm)[:-1]
    if eval_loss is not None:
        shapes["eval_loss"] = np.shape(eval_loss)
    if () in shapes.values() or len({shape[0] for shape in shapes.values()}) > 1:
        found = ", ".join(f"{shape} of {name}" for name, shape in shapes.items())
        raise ValueError(
            f"steps must be False without an axis of steps before all others, got the axes {found}."
            " Return the loss and the statistics of every step from the scan."
        )
    return int(shapes["loss"][0])


def _step(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda value: value[i], tree)


def _readable(array: jax.Array) -> bool:
    return not array.is_deleted() and (array.is_fully_addressable or array.is_fully_replicated)
