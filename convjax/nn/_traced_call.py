"""A call of a model or function as a pure program of arrays, with the outputs of its layers."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.extend.core import Jaxpr, Literal, Var, jaxpr_as_fun

from convjax.nn._equinox_calls import equinox_reporting, is_equinox
from convjax.nn._harvest import Found, Tag, harvest
from convjax.nn._module_calls import LayerCalls, active_captures
from convjax.nn._nnx_calls import (
    make_merged_reporting,
    make_reporting,
    on_merge,
    remove_reporting,
)
from convjax.nn._nonlinearities import nonlinearities
from convjax.nn._step_program import dropout_noise
from convjax.nn.outputs import LayerKind, LayerOutputs
from convjax.nn.selection import numbered

# JAX traces an inner function, such as a jitted one, only once. In a capture it has another program
# than outside, so that neither finds the other's: one has no tags, and the other those of the first
# capture.
_capture = jax.make_user_context(None)

# Raised where the traced function needs the values of its arrays, which it has outside of jit.
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


class Layers(NamedTuple):
    """The outputs of layers of one call.

    Attributes:
      outputs: by name.
      lost: the names of layers whose outputs cannot leave a transform, with its primitive.
      others: the tagged values of other kinds.
    """

    outputs: LayerOutputs
    lost: dict[str, str]
    others: list[tuple[Found, Any]]


def call_with_layers(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    calls: LayerCalls,
    further: Callable[[Jaxpr, list[Any]], Mapping[Var, Tag]] | None = None,
) -> tuple[Any, Layers]:
    """Calls a function and returns its result and the outputs of the layers that it calls.

    Changes that the function makes to NNX models among its arguments are made to them.

    Args:
      function: called with `args` and `kwargs`.
      args: may hold models of NNX and Equinox anywhere.
      kwargs: likewise.
      calls: which layers.
      further: returns values to take as if they were tagged, given the program and its arguments.
    """
    arguments = _Arguments(function, args, kwargs)
    arrays = arguments.arrays
    try:
        with _capture(_key(arguments, calls)):
            program = jax.make_jaxpr(lambda *arrays: arguments.run(function, arrays, calls))(
                *arrays
            )
    except _NEEDS_VALUES:
        calls.direct = []
        values = arguments.run(function, arrays, calls)
        pairs = [(Found(tag), value) for tag, value in calls.direct]
        return arguments.result(values), _layers(pairs, calls.lost, {})
    untagged = further(program.jaxpr, arrays) if further is not None else None
    harvested, found, lost = harvest(program, calls.level, untagged)
    values = jaxpr_as_fun(harvested)(*arrays)
    count = len(program.jaxpr.outvars)
    known = dict(zip(program.jaxpr.invars, arrays, strict=True))
    # What the function passes on as it is keeps its identity.
    results = [
        value if isinstance(var, Literal) else known.get(var, value)
        for var, value in zip(program.jaxpr.outvars, values, strict=False)
    ]
    pairs = [(f, f.arranged(value)) for f, value in zip(found, values[count:], strict=True)]
    layers = _layers(pairs, lost, nonlinearities(program.jaxpr, calls.level))
    layers.outputs.dropout_noise = dropout_noise(program.jaxpr)
    return arguments.result(results), layers


def _key(arguments: "_Arguments", calls: LayerCalls) -> Any:
    """Returns what tells a capture from others: its own, or outside of jit that of equal ones.

    Outside of jit the programs of the capture before need not be compiled again.
    """
    if not calls.reusable or any(isinstance(x, jax.core.Tracer) for x in arguments.arrays):
        return object()
    level = len(active_captures())
    key = type(calls), calls.selects, calls.inputs, level, arguments.kind
    try:
        hash(key)
    except TypeError:
        return object()
    return key


def _layers(
    pairs: list[tuple[Found, Any]], lost: dict[str, str], after: Mapping[str, str]
) -> Layers:
    """Returns the tagged values in their kinds, given the non-linearity after each layer."""
    layers = [pair for pair in pairs if pair[0].tag.kind == "layer"]
    # A function without modules may name its values by jax.ad_checkpoint.checkpoint_name.
    layers = layers or [pair for pair in pairs if pair[0].tag.kind == "name"]
    depths = {scan.key for f, _ in pairs for scan in f.scans if scan.depth}
    others = [
        _of_first_depth(f, value, depths) if f.tag.kind == "input" else (f, value)
        for f, value in pairs
        if f.tag.kind != "layer"
    ]
    outputs = _named(layers, after)
    whole = [value for f, value in others if f.tag.kind == "output" and not f.scans]
    outputs.output = whole[-1] if whole else None
    return Layers(outputs, lost, others)


def _of_first_depth(found: Found, value: Any, depths: set[int]) -> tuple[Found, Any]:
    """Returns the input of the network, which is that of the first of scanned layers."""
    for scan in found.scans:
        if scan.key in depths:
            found, value = _without(found, scan), _at(found, scan, value, 0)
    return found, value


class _Arguments:
    """The arguments of a function as arrays and a structure, and its results likewise."""

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self._given = args, kwargs
        self._prefixes = _prefixes(function, args, kwargs)
        self._stateful = any(map(_is_nnx, _leaves(self._given)))
        self._graph: Any = None
        state: Any = self._given
        if self._stateful:
            self._graph, state = nnx.split(self._given)
        leaves, self._structure = jax.tree.flatten(state)
        self._dynamic = [_is_array(leaf) for leaf in leaves]
        self._leaves = leaves

    @property
    def kind(self) -> Any:
        """The models and containers, without their arrays."""
        return self._graph, self._structure

    @property
    def arrays(self) -> list[Any]:
        return [leaf for leaf, dynamic in zip(self._leaves, self._dynamic, strict=True) if dynamic]

    def run(self, function: Any, arrays: Any, calls: LayerCalls) -> list[Any]:
        """Calls the function on a copy of its arguments; returns the arrays of its results."""
        new = iter(arrays)
        pairs = zip(self._leaves, self._dynamic, strict=True)
        state = jax.tree.unflatten(
            self._structure, [next(new) if dynamic else leaf for leaf, dynamic in pairs]
        )
        copied = nnx.merge(self._graph, state) if self._stateful else state
        args, kwargs = copied
        named = list(zip(_models(copied), self._prefixes, strict=True))
        equinox = {prefix: model for model, prefix in named if is_equinox(model)}
        merged = partial(make_merged_reporting, calls=calls)
        with calls.reporting(), equinox_reporting(equinox, calls), on_merge(merged):
            for model, prefix in named:
                if isinstance(model, nnx.Module):
                    make_reporting(model, calls, prefix)
                    calls.named[prefix] = None
            output = function(*args, **kwargs)
            for model in _models((copied, output)):
                if isinstance(model, nnx.Module):
                    remove_reporting(model, calls)
        if isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Mapping):
            calls.order = list(output[1])
        return self._split(copied, output)

    def _split(self, copied: Any, output: Any) -> list[Any]:
        """Returns the arrays of the output and of the changed arguments."""
        self._after: Any = None
        changed: list[Any] = []
        if self._stateful:
            graph, state = nnx.split(copied)
            flat = nnx.to_flat_state(state)
            self._after = graph, [path for path, _ in flat], [leaf for _, leaf in flat]
            self._copied = copied
            changed, self._after_structure = jax.tree.flatten(self._after[2])
            # Objects among the results that are arguments must be the caller's objects.
            pairs = zip(_leaves(copied), _leaves(self._given), strict=True)
            given = {id(copy): original for copy, original in pairs if _is_nnx(copy)}
            output = jax.tree.map(
                lambda leaf: _Given(given[id(leaf)]) if id(leaf) in given else leaf,
                output,
                is_leaf=lambda leaf: id(leaf) in given,
            )
        leaves, self._output_structure = jax.tree.flatten(output)
        everything = [*leaves, *changed]
        self._output_count = len(leaves)
        self._static = [None if _is_array(leaf) else (leaf,) for leaf in everything]
        return [leaf for leaf in everything if _is_array(leaf)]

    def result(self, arrays: list[Any]) -> Any:
        """Returns the function's result, and changes the NNX models among its arguments."""
        new = iter(arrays)
        leaves = [next(new) if static is None else static[0] for static in self._static]
        output = jax.tree.unflatten(self._output_structure, leaves[: self._output_count])
        if self._stateful:
            self._update(leaves[self._output_count :])
            output = jax.tree.map(
                lambda leaf: leaf.value if isinstance(leaf, _Given) else leaf,
                output,
                is_leaf=lambda leaf: isinstance(leaf, _Given),
            )
        return output

    def _update(self, leaves: list[Any]) -> None:
        graph, paths, _ = self._after
        variables = jax.tree.unflatten(self._after_structure, leaves)
        before = {id(leaf) for leaf in self._leaves}
        changed = {
            path: variable
            for path, variable in zip(paths, variables, strict=True)
            if not all(id(leaf) in before for leaf in jax.tree.leaves(variable))
        }
        if changed:
            nnx.update(self._given, nnx.from_flat_state(changed))
        if graph != self._graph:
            _set_attributes(self._copied, self._given)


class _Given:
    """An argument among the results; a leaf of a pytree."""

    def __init__(self, value: Any):
        self.value = value


def _set_attributes(copied: Any, given: Any) -> None:
    """Sets the numbers, names and functions of models as the called function has left them."""
    for copy, original in zip(_models(copied), _models(given), strict=True):
        if not isinstance(copy, nnx.Module):
            continue
        originals = dict(nnx.iter_modules(original))
        for path, module in nnx.iter_modules(copy):
            for name, value in vars(module).items():
                simple = isinstance(value, bool | int | float | str | None) or callable(value)
                if (
                    not simple
                    or isinstance(value, nnx.Pytree | nnx.Variable)
                    or path not in originals
                ):
                    continue
                if vars(originals[path]).get(name, _Given) is not value:
                    setattr(originals[path], name, value)


def _named(found: list[tuple[Found, Any]], after: Mapping[str, str]) -> LayerOutputs:
    """Returns the tagged values by name; those of a scan over layers one by one."""
    names = {f.tag.name for f, _ in found}
    outputs = LayerOutputs()

    def add(items: list[tuple[Found, Any, str]]) -> None:
        """Adds values whose scans over layers are outermost, in the order of the calls."""
        for scan, group in itertools.groupby(items, lambda item: _outermost(item[0])):
            members = list(group)
            if scan is None:
                for f, value, name in members:
                    key = numbered(name, outputs)
                    outputs[key] = value
                    outputs.kinds[key] = LayerKind(f.tag.module, after.get(f.tag.name, ""))
                    if f.tag.channel_axis != -1:
                        outputs.channel_axes[key] = f.tag.channel_axis
                continue
            stacked = {f.tag.name for f, _, _ in members}
            at = len(_stack_prefix(stacked, names))
            for i in range(scan.length):
                # One scan over layers is taken away; scans over time around it stay axes.
                add(
                    [
                        (_without(f, scan), _at(f, scan, value, i), _indexed(name, at, i))
                        for f, value, name in members
                    ]
                )

    add([(f, value, f.tag.name) for f, value in found])
    return outputs


def _outermost(found: Found) -> Any:
    return next((scan for scan in found.scans if scan.depth), None)


def _without(found: Found, scan: Any) -> Found:
    return found._replace(scans=tuple(s for s in found.scans if s is not scan and s != scan))


def _at(found: Found, scan: Any, value: Any, index: int) -> Any:
    return jax.lax.index_in_dim(value, index, found.scans.index(scan), keepdims=False)


def _stack_prefix(stacked: set[str], names: set[str]) -> str:
    """Returns the name of the module that a scan iterates over: "layers" of "layers.linear"."""
    parts = [name.split(":")[0].split(".") for name in stacked]
    common = [same[0] for same in zip(*parts, strict=False) if len(set(same)) == 1]
    for count in range(1, len(common) + 1):
        prefix = ".".join(common[:count])
        under = {n for n in names if n == prefix or n.startswith((prefix + ".", prefix + ":"))}
        if under <= stacked:
            return prefix
    return ".".join(common)


def _indexed(name: str, at: int, index: int) -> str:
    """Returns the name with an index after its first `at` letters, not counting other indices."""
    if not at:
        return f"{name}[{index}]"
    seen = position = 0
    while seen < at or name[position : position + 1] == "[":
        if name[position] == "[":
            position = name.index("]", position) + 1
        else:
            position, seen = position + 1, seen + 1
    return f"{name[:position]}[{index}]{name[position:]}"


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) or type(leaf).__module__ == "numpy"


def _is_nnx(value: Any) -> bool:
    return isinstance(value, nnx.Pytree | nnx.Variable) and not isinstance(value, nnx.State)


def _is_node(value: Any) -> bool:
    return _is_nnx(value) or is_equinox(value)


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=_is_nnx)


def _models(tree: Any) -> Iterator[Any]:
    """Yields the models in a tree: each NNX object once, and the first of each Equinox class.

    Further objects of an Equinox class are gradients and moments of the model.
    """
    seen = set[Any]()
    for leaf in jax.tree.leaves(tree, is_leaf=_is_node):
        key = id(leaf) if isinstance(leaf, nnx.Module) else type(leaf)
        if (isinstance(leaf, nnx.Module) or is_equinox(leaf)) and key not in seen:
            seen.add(key)
            yield leaf


def named_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Mapping[str, Any]:
    """Returns the arguments of a call by the function's names, or by position where it has none."""
    try:
        return inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {str(i): value for i, value in enumerate(args)} | kwargs


def _prefixes(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Returns what stands before the names of each model: nothing if there is only one."""
    models = list(_models((args, kwargs)))
    if len(models) < 2:
        return [""] * len(models)
    prefixes = {}
    for name, value in named_arguments(function, args, kwargs).items():
        inside = [model for model in _models(value) if id(model) not in prefixes]
        for i, model in enumerate(inside):
            prefixes[id(model)] = name if len(inside) == 1 else f"{name}.{i}"
    return [prefixes.get(id(model), str(i)) for i, model in enumerate(models)]
