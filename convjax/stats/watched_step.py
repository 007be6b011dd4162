"""A training step that also returns everything that `convjax.diagnose` uses."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Var

from convjax._checks import check_function, check_type
from convjax.nn._harvest import Tag
from convjax.nn._module_calls import LayerCalls
from convjax.nn._step_program import read_step
from convjax.nn._traced_call import Layers, call_with_layers
from convjax.nn._written_updates import written_updates
from convjax.nn.outputs import LayerOutputs
from convjax.nn.selection import has_parameters, predicate
from convjax.stats._loss_calls import loss_calls
from convjax.stats._optimizer_calls import optimizer_calls
from convjax.stats._optimizer_tags import OptimizerTags
from convjax.stats._step_arguments import StepArguments, leave_out, loss_of
from convjax.stats.facts import batch_facts
from convjax.stats.layers import NOISE, LayerStats, layer_stats
from convjax.stats.watch import INPUT, LABELS, Watch

Step = Callable[..., Any]
P = ParamSpec("P")
T = TypeVar("T")


def watch_step(
    step: Callable[P, T],
    *,
    watch: Watch | None = None,
    loss: Callable[[Any], jax.Array] | None = None,
    labels: Callable[..., jax.Array] | None = None,
) -> Callable[P, tuple[T, dict[str, Any]]]:
    """Returns a training step that also returns its statistics.

    The step itself stays as it is. It may belong to any loop of Flax NNX, Flax Linen, Haiku,
    Equinox or Optax alone. The statistics are those of the outputs of its layers, see
    `convjax.capture`; of the network's input and the labels; and of the gradients, parameters and
    updates of the Optax transformation that it calls. They are what `convjax.Recorder.add` takes.

    `convjax.Recorder.watch` does all of this for a step that is compiled by itself. This function
    is for a step inside a larger program, such as a scan over steps.

    Args:
      step: a function, before it is compiled.
      watch: the quantities; by default all of `Watch.everything()`. Its `every` and `evaluation`
        belong to `Recorder.watch`.
      loss: returns the loss, given what the step returns. By default it is the scalar named "loss",
        or by another usual name, or else the first without a name.
      labels: returns the labels or targets, given the arguments of the step. By default they are
        the argument whose name begins with "y", "label", "target" or "class", or the only item of
        a tuple with one integer per example, or else what the loss compares with the outputs.

    Returns:
      A function that returns (what the step returns, {"loss": …, "layers": …, "parameters": …,
      "learning_rate": …, "momentum": …}). The rate and momentum are those in the optimiser's state
      after `optax.inject_hyperparams`, and otherwise absent, like all that is not known.

    Raises:
      TypeError: if an argument is of another type.

    Examples:
      >>> import convjax, jax, jax.numpy as jnp, optax
      >>> from flax import nnx
      >>> model = convjax.ConvNet((1, 4, 2), rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
      >>> @nnx.jit
      ... @convjax.watch_step
      ... def train_step(model, optimizer, x, y):
      ...     def loss_fn(model):
      ...         return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
      ...     loss, grads = nnx.value_and_grad(loss_fn)(model)
      ...     optimizer.update(model, grads)
      ...     return loss
      >>> loss, stats = train_step(model, optimizer, jnp.ones((3, 8, 8, 1)), jnp.array([0, 1, 0]))
      >>> stats["layers"].names
      ('input', 'labels', 'blocks.0.conv', 'blocks.1.conv')
      >>> recorder = convjax.Recorder()
      >>> recorder.add(**stats)
    """
    check_function("step", step, "that takes one training step")
    chosen = Watch.everything() if watch is None else watch
    check_type("watch", chosen, Watch, "Pass Watch.everything() or another Watch.")

    @wraps(step)
    def watched(*args: P.args, **kwargs: P.kwargs) -> tuple[T, dict[str, Any]]:
        given = StepArguments(step, args, kwargs)
        calls = LayerCalls(predicate(chosen.select), inputs=chosen.inputs, reusable=False)
        optimizers = OptimizerTags(calls)
        reader = _ProgramReader(calls, optimizers, given, labels)
        failed = None

        @wraps(step)
        def observed(*args: Any, **kwargs: Any) -> Any:
            optimizers.restart()  # of a trace that failed, the step has called them before
            with optimizer_calls(optimizers.report), loss_calls(partial(_tag_loss, calls)):
                return step(*args, **kwargs)

        try:
            result, layers = call_with_layers(observed, args, kwargs, calls, reader)
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
        if failed is not None:
            # A step that runs alone must run watched. If it is itself at fault, it raises here.
            result = step(*args, **kwargs)
            leave_out("everything but the loss", failed)
            layers = Layers(LayerOutputs(), {}, [])
        stats: dict[str, Any] = {}
        try:
            if (value := loss_of(result, loss)) is not None:
                stats["loss"] = value
            others = {f.tag.name: value for f, value in layers.others if not f.scans}
            if chosen.activations and not layers.outputs and chosen.select is not has_parameters:
                names = "print(convjax.summary(model, x)) shows the names"
                leave_out("all layers", f"none matches select={chosen.select!r}; {names}")
            if chosen.activations or chosen.inputs:
                stats["layers"] = _layer_stats(chosen, layers, given, labels, reader)
            if chosen.parameters:
                stats["parameters"] = optimizers.stats(chosen, others, given)
            stats |= {
                name: others[name] for name in ("learning_rate", "momentum") if name in others
            }
        except Exception as error:
            leave_out("statistics", f"{type(error).__name__}: {error}")
        return result, {name: value for name, value in stats.items() if value is not None}

    return watched


_IN_LOSS = ("loss outputs", "loss labels")


def _tag_loss(calls: LayerCalls, outputs: Any, labels: Any) -> tuple[Any, Any]:
    """Returns the arguments of a loss, tagged."""

    def keep(name: str, value: Any) -> Any:
        return calls.keep(Tag(name, "loss"), value) if isinstance(value, jax.Array) else value

    return keep(_IN_LOSS[0], outputs), keep(_IN_LOSS[1], labels)


_INPUT = "network input"


class _ProgramReader:
    """Reads what the traced program tells without names; a callback of `call_with_layers`."""

    def __init__(
        self,
        calls: LayerCalls,
        optimizers: OptimizerTags,
        given: StepArguments,
        labels: Callable[..., jax.Array] | None,
    ):
        self._level, self._told = calls.level, labels is not None
        self._optimizers, self._given = optimizers, given
        self._labels = given.labels(None)
        self._unused: list[Any] = []
        if labels is not None:
            with suppress(Exception):  # which is reported where the labels are recorded
                self._labels = labels(*given.args, **given.kwargs)

    def __call__(self, jaxpr: Jaxpr, arguments: list[Any]) -> Mapping[Var, Tag]:
        pairs = list(zip(jaxpr.invars, arguments, strict=True))
        labels = [var for var, given in pairs if given is self._labels]
        used = {var for eqn in jaxpr.eqns for var in eqn.invars if isinstance(var, Var)}
        used |= {var for var in jaxpr.outvars if isinstance(var, Var)}
        self._unused = [given for var, given in pairs if var not in used]
        written: dict[Var, Tag] = {}
        try:
            updates = written_updates(jaxpr)
            of_arguments = dict(zip(jaxpr.invars, arguments, strict=True))
            names = self._given.names([of_arguments[update.param] for update in updates])
            written = self._optimizers.written(updates, names)
            found = read_step(jaxpr, self._level, labels, _IN_LOSS[0], written)
        except Exception as error:
            leave_out("what its loss compares", f"{type(error).__name__}: {error}")
            return written
        if self._told and not labels:  # they are made of several arguments
            found = found._replace(outputs=None, labels=None)
        named = zip((*_IN_LOSS, _INPUT), found, strict=True)
        of_loss = {
            var: Tag(name, "compared", self._level) for name, var in named if var is not None
        }
        return of_loss | written

    def is_unused(self, argument: Any) -> bool:
        """Returns whether the step's program does not use an argument."""
        return any(argument is unused for unused in self._unused)


def _layer_stats(
    watch: Watch,
    layers: Layers,
    given: StepArguments,
    labels: Callable[..., jax.Array] | None,
    reader: _ProgramReader,
) -> LayerStats | None:
    # A record has the network's input and labels by these names; layers of the names get others.
    renamed = {INPUT: f"{INPUT}_layer", LABELS: f"{LABELS}_layer"}
    captured = layers.outputs if watch.activations else LayerOutputs()

    def as_recorded(named: Mapping[str, Any]) -> dict[str, Any]:
        return {renamed.get(name, name): value for name, value in named.items()}

    outputs = LayerOutputs(
        as_recorded(captured),
        as_recorded(captured.channel_axes),
        as_recorded(captured.kinds),
        layers.outputs.output,
        layers.outputs.dropout_noise,
    )
    if layers.lost:
        inside = ", ".join(f"{name} (in {where})" for name, where in layers.lost.items())
        leave_out(inside, "values inside these transforms exist only there")
    if watch.inputs:
        scans, x = next(
            ((f.scans, value) for f, value in layers.others if f.tag.kind == "input"), ((), None)
        )
        # A scan over time around the first layer has its axis before that of the examples.
        examples = None if x is None or scans else len(x)
        y = given.labels(examples) if labels is None else None
        if reader.is_unused(y):  # such as the labels of a data set, in a training without any
            y = None
        if labels is not None:
            try:
                y = labels(*given.args, **given.kwargs)
            except Exception as error:
                advice = "labels= is called with the arguments of the step"
                leave_out("the labels", f"{type(error).__name__}: {error}. {advice}")
        in_loss, by_hand = _of_kind(layers, "loss"), _of_kind(layers, "compared")
        found_input = by_hand.pop(_INPUT, None)
        if y is None or outputs.output is None:
            in_loss = in_loss or by_hand
        y = in_loss.get(_IN_LOSS[1]) if y is None else y
        y = y if y is None or y.ndim else None
        if x is None:
            x = given.images(y) if found_input is None else found_input
        before = {INPUT: x, LABELS: y}
        outputs = {name: value for name, value in before.items() if value is not None} | outputs
    if not outputs:
        return None
    stats = layer_stats(outputs, histogram=watch.histogram, bins=watch.bins, units=watch.units)
    if watch.inputs and len(in_loss) == 2:
        # As the loss gets them, whatever the step has done to them.
        facts: dict[str, Any] = dict(batch_facts(*(in_loss[n] for n in _IN_LOSS)))
        facts["loss by hand"] = jnp.float32(in_loss is by_hand)
        facts |= {n: x for n, x in stats.facts.items() if n == NOISE}
        stats = replace(stats, facts=facts)
    return stats


def _of_kind(layers: Layers, kind: str) -> dict[str, jax.Array]:
    """Returns the tagged values of a kind by name; those of scans exist only step by step."""
    found: dict[str, jax.Array] = {}
    for f, value in layers.others:
        if f.tag.kind == kind and not f.scans:
            found.setdefault(f.tag.name, value)  # the first loss is that of the data
    return found
