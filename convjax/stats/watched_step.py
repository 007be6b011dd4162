"""A training step that also returns everything that `convjax.diagnose` uses."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.extend.core import Jaxpr, Var

from convjax._checks import check_function, check_type
from convjax._warnings import warn_user
from convjax.nn._harvest import Tag
from convjax.nn._module_calls import LayerCalls, is_float
from convjax.nn._step_program import read_step
from convjax.nn._traced_call import Layers, call_with_layers, named_arguments
from convjax.nn.outputs import LayerOutputs
from convjax.nn.selection import predicate
from convjax.stats._loss_calls import loss_calls
from convjax.stats._optimizer_calls import OptimizerCall, optimizer_calls
from convjax.stats.facts import batch_facts
from convjax.stats.layers import NOISE, LayerStats, layer_stats
from convjax.stats.parameters import ParameterStats, applied, parameter_stats
from convjax.stats.watch import INPUT, LABELS, Watch

Step = Callable[..., Any]


def watch_step(
    step: Step,
    *,
    watch: Watch | None = None,
    loss: Callable[[Any], jax.Array] | None = None,
    labels: Callable[..., jax.Array] | None = None,
) -> Step:
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
    def watched(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        given = _Given(step, args, kwargs)
        calls = LayerCalls(predicate(chosen.select), inputs=chosen.inputs, reusable=False)
        optimizers, reader = _Optimizers(calls), _ProgramReader(calls, given, labels)
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
            _leave_out("everything but the loss", failed)
            layers = Layers(LayerOutputs(), {}, [])
        stats: dict[str, Any] = {}
        try:
            if (value := find_loss(result) if loss is None else loss(result)) is not None:
                stats["loss"] = value
            others = {f.tag.name: value for f, value in layers.others if not f.scans}
            if chosen.activations or chosen.inputs:
                stats["layers"] = _layer_stats(chosen, layers, given, labels)
            if chosen.parameters:
                stats["parameters"] = optimizers.stats(chosen, others, given)
            stats |= {
                name: others[name] for name in ("learning_rate", "momentum") if name in others
            }
        except Exception as error:
            _leave_out("statistics", f"{type(error).__name__}: {error}")
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
        given: "_Given",
        labels: Callable[..., jax.Array] | None,
    ):
        self._level, self._told = calls.level, labels is not None
        self._labels = given.labels(None)
        if labels is not None:
            with suppress(Exception):  # which is reported where the labels are recorded
                self._labels = labels(*given.args, **given.kwargs)

    def __call__(self, jaxpr: Jaxpr, arguments: list[Any]) -> Mapping[Var, Tag]:
        pairs = zip(jaxpr.invars, arguments, strict=True)
        labels = [var for var, given in pairs if given is self._labels]
        try:
            found = read_step(jaxpr, self._level, labels, _IN_LOSS[0])
        except Exception as error:
            _leave_out("what its loss compares", f"{type(error).__name__}: {error}")
            return {}
        if self._told and not labels:  # they are made of several arguments
            found = found._replace(outputs=None, labels=None)
        names = zip((*_IN_LOSS, _INPUT), found, strict=True)
        return {var: Tag(name, "compared", self._level) for name, var in names if var is not None}


class _Given:
    """The arguments of a step before it runs."""

    def __init__(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.args, self.kwargs = args, kwargs
        self.named = named_arguments(step, args, kwargs)

    def labels(self, examples: int | None) -> jax.Array | None:
        """Returns the argument with numbers for each example that is named as labels are.

        An item of a tuple has no name: it is taken if it is the only one with one integer per
        example.
        """
        leaves = jax.tree_util.tree_leaves_with_path(dict(self.named), is_leaf=_is_model)
        found = [
            (_last_name(path), leaf)
            for path, leaf in leaves
            if (_is_integers(leaf) or is_float(leaf))
            and leaf.ndim
            and examples in (None, len(leaf))
        ]
        names = ("y", "label", "target", "class")
        named = [leaf for name, leaf in found if name.startswith(names)]
        unnamed = [
            leaf
            for name, leaf in found
            if not name and leaf.size > 1 and _is_integers(leaf) and leaf.ndim == 1
        ]
        chosen = named or unnamed
        return chosen[0] if len(chosen) == 1 else None

    def images(self, labels: jax.Array | None) -> jax.Array | None:
        """Returns the only argument with several numbers per example, besides the labels.

        Without labels, whose number would be that of the examples, only an argument that is an
        array by itself counts: others are parameters.
        """
        values = dict(self.named)
        leaves = values.values() if labels is None else jax.tree.leaves(values, is_leaf=_is_model)
        found = [
            x
            for x in leaves
            if is_float(x)
            and x.ndim > 1
            and x is not labels
            and (labels is None or len(x) == len(labels))
        ]
        return found[0] if len(found) == 1 else None

    def like(self, tree: Any) -> Any:
        """Returns the only argument, or `params` of one, whose floats are arranged as in a tree."""
        wanted = jax.tree.map(jnp.shape, _only(is_float, tree))
        candidates = [
            _only(is_float, candidate)
            for value in self.named.values()
            for candidate in (value, getattr(value, "params", None))
        ]
        found = [tree for tree in candidates if jax.tree.map(jnp.shape, tree) == wanted]
        return found[0] if len(found) == 1 else None


class _Optimizers:
    """The calls of optimisers in one step; their arrays are tagged."""

    def __init__(self, calls: LayerCalls):
        self._calls = calls
        self.restart()

    def restart(self) -> None:
        self._structures: list[dict[str, Any]] = []

    def report(self, call: OptimizerCall) -> None:
        number = len(self._structures)
        structures: dict[str, Any] = {}
        for name in ("grads", "params", "updates"):
            # A whole model of Equinox among them has functions and settings, too.
            tree = _only(lambda leaf: isinstance(leaf, jax.Array), getattr(call, name))
            leaves, structures[name] = jax.tree.flatten(tree)
            for i, leaf in enumerate(leaves):
                self._keep(f"{number}/{name}/{i}", leaf)
        self._structures.append(structures)
        if (done := applied(call.state)) is not None:
            self._keep(f"{number}/applied", done)
        if not number:
            for name, keys in (("learning_rate", ("learning_rate",)), ("momentum", _MOMENTA)):
                found = [v for key in keys for _, v in _state_values(call.state, key)]
                if found and isinstance(found[0], jax.Array) and not found[0].ndim:
                    self._keep(name, found[0])

    def _keep(self, name: str, value: jax.Array) -> None:
        self._calls.keep(Tag(name, "optimizer"), value)

    def stats(
        self, watch: Watch, values: Mapping[str, Any], given: _Given
    ) -> ParameterStats | None:
        """Returns the statistics of all parameters, from the tagged values by name."""
        if not self._structures:
            _leave_out(
                "gradients and updates",
                "the step calls no Optax optimiser. Pass parameter_stats(params, grads=, "
                "updates=) to Recorder.add yourself",
            )
            return None
        trees: dict[str, list[Any]] = {"grads": [], "params": [], "updates": []}
        done = [v for name, v in values.items() if name.endswith("/applied")]
        for number, structures in enumerate(self._structures):
            for name, structure in structures.items():
                keys = [f"{number}/{name}/{i}" for i in range(structure.num_leaves)]
                if not all(key in values for key in keys):
                    _leave_out(
                        "gradients and updates",
                        "the optimiser is called inside a scan or a branch. Apply "
                        "convjax.watch_step to the inner step",
                    )
                    return None
                tree = jax.tree.unflatten(structure, [values[key] for key in keys])
                if name == "params" and not keys:
                    tree = given.like(trees["grads"][number])
                    if tree is None:
                        _leave_out(
                            "gradients and updates",
                            "the optimiser does not get the parameters. Write "
                            "update(grads, opt_state, params)",
                        )
                        return None
                trees[name].append(tree)
        one = len(self._structures) == 1
        grads, params, updates = (t[0] if one else dict(enumerate(t)) for t in trees.values())
        stats = parameter_stats(
            params,
            grads=grads if watch.gradients else None,
            updates=updates if watch.updates else None,
            histogram=watch.histogram,
        )
        return replace(stats, applied=jnp.all(jnp.stack(done))) if done else stats


_MOMENTA = ("momentum", "b1")


def _state_values(state: Any, key: str) -> list[tuple[Any, Any]]:
    return list(optax.tree_utils.tree_get_all_with_path(state, key))


def _layer_stats(
    watch: Watch, layers: Layers, given: _Given, labels: Callable[..., jax.Array] | None
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
        _leave_out(inside, "values inside these transforms exist only there")
    if watch.inputs:
        scans, x = next(
            ((f.scans, value) for f, value in layers.others if f.tag.kind == "input"), ((), None)
        )
        # A scan over time around the first layer has its axis before that of the examples.
        examples = None if x is None or scans else len(x)
        y = given.labels(examples) if labels is None else None
        if labels is not None:
            try:
                y = labels(*given.args, **given.kwargs)
            except Exception as error:
                advice = "labels= is called with the arguments of the step"
                _leave_out("the labels", f"{type(error).__name__}: {error}. {advice}")
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


def find_loss(result: Any) -> jax.Array | None:
    """Returns the loss among the results of a step, or None with a warning where it is not clear.

    It is the scalar named "loss", or that of another usual name, or the only one whose name ends in
    "loss", or the first without a name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(result, is_leaf=_is_model)
    scalars = [
        (_loss_rank(_last_name(path)), len(path), i, leaf)
        for i, (path, leaf) in enumerate(leaves)
        if is_float(leaf) and not leaf.ndim
    ]
    if not scalars:
        _leave_out("the loss", "the step returns no scalar. Pass loss=lambda result: ...")
        return None
    rank, depth, _, loss = min(scalars, key=lambda scalar: scalar[:3])
    alike = [scalar for scalar in scalars if scalar[:2] == (rank, depth)]
    if rank in _AMBIGUOUS and len(alike) > 1:
        _leave_out("the loss", "several scalars may be it. Pass loss=lambda result: ...")
        return None
    return loss


# The names that a loss has, and the ranks in which several scalars are no choice.
_LOSS_NAMES = ("total_loss", "train_loss", "total", "nll", "objective", "cost")
_AMBIGUOUS = (1, 2, 4)


def _loss_rank(name: str) -> int:
    if name == "loss":
        return 0
    if name in _LOSS_NAMES:
        return 1
    if name.endswith("loss"):
        return 2
    return 4 if name else 3


def _only(kind: Callable[[Any], bool], tree: Any) -> Any:
    """Returns a tree with None in place of other leaves."""
    return jax.tree.map(lambda leaf: leaf if kind(leaf) else None, tree)


def _last_name(path: Any) -> str:
    """Returns the last key or attribute of a path in a tree, "" for an index."""
    last = path[-1] if path else None
    return str(getattr(last, "key", getattr(last, "name", ""))).lower()


def _is_model(value: Any) -> bool:
    return isinstance(value, nnx.Pytree | nnx.Variable)


def _is_integers(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.integer)


def _leave_out(what: str, why: str) -> None:
    warn_user(f"the watched step leaves out {what}: {why}.")
