"""Tags on the outputs of layers, and the program that also returns what is tagged.

A tag is an identity operation. It stays in the jaxpr of a traced function wherever the layer is
called: inside grad, vmap, jit, checkpoint and scan, of JAX or lifted by Flax. `harvest` rewrites
the jaxpr so that the tagged values leave these transforms as further outputs. The operations of
the function itself stay as they are.

References:
  The idea is that of Oryx's harvest, https://github.com/jax-ml/oryx, "sow" and "reap" there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir


@dataclass(frozen=True)
class Tag:
    """The name of a tagged value.

    Attributes:
      name: of the layer.
      kind: "layer", or what else the value is.
      level: how many captures enclose the one that reads the tag.
      channel_axis: the axis of the channels, negative, in the value without batch axes.
      batch_axes: where each vmap around the layer has put its axis, the innermost first.
      module: the name of the layer's class.
    """

    name: str
    kind: str = "layer"
    level: int = 0
    channel_axis: int = -1
    batch_axes: tuple[int, ...] = ()
    module: str = ""


class Scan(NamedTuple):
    """One scan around a tagged value, whose output has the scan's axis first.

    Attributes:
      key: identifies the scan.
      length: number of iterations.
      depth: whether the parameters of the layer differ between iterations. They are then layers of
        a stack; otherwise one layer is called many times, as in a recurrent network.
    """

    key: int
    length: int
    depth: bool


class Found(NamedTuple):
    """A tagged value among the outputs of a harvested program; scans from the outermost in."""

    tag: Tag
    scans: tuple[Scan, ...] = ()
    owners: frozenset[int] = frozenset()  # arguments of the program that the layer's weights are

    def arranged(self, value: jax.Array) -> jax.Array:
        """Returns the value with the axes of vmap after those of the scans, before its own."""
        first = len(self.scans)
        for axis in reversed(self.tag.batch_axes):
            value = jnp.moveaxis(value, axis + first, first) if axis else value
            first += 1
        return value


layer_output_p = Primitive("layer_output")
layer_output_p.def_impl(lambda x, *owner, tag: x)
layer_output_p.def_abstract_eval(lambda x, *owner, tag: x)
mlir.register_lowering(layer_output_p, lambda context, x, *owner, tag: [x])


def _jvp(primals: Any, tangents: Any, *, tag: Tag) -> Any:
    # Only the value is tagged. The tangent becomes part of the backward pass.
    return layer_output_p.bind(*primals, tag=tag), tangents[0]


def _batch(args: Any, axes: Any, *, tag: Tag) -> Any:
    if axes[0] is not None:
        tag = replace(tag, batch_axes=(*tag.batch_axes, axes[0]))
    return layer_output_p.bind(*args, tag=tag), axes[0]


ad.primitive_jvps[layer_output_p] = _jvp
batching.primitive_batchers[layer_output_p] = _batch


def tagged(x: jax.Array, tag: Tag, owner: jax.Array | None = None) -> jax.Array:
    """Returns x, which `harvest` then finds.

    Args:
      x: the output of a layer.
      tag: its name.
      owner: a parameter of the layer; it tells a scan over layers from one over time.
    """
    return layer_output_p.bind(x, *(() if owner is None else (owner,)), tag=tag)


def harvest(
    program: ClosedJaxpr, level: int, further: Mapping[Var, Tag] | None = None
) -> tuple[ClosedJaxpr, list[Found], dict[str, str]]:
    """Returns a program whose further outputs are its tagged values.

    Args:
      program: of any function.
      level: of the tags.
      further: values that are taken as if they were tagged, with their tags.

    Returns:
      The program; what its further outputs are, in the order of the calls; and the names of the
      tagged values that cannot leave, with the primitive that they are inside.
    """
    rewriter = _Rewriter(level, further or {})
    jaxpr, found = rewriter.rewrite(program.jaxpr)
    return ClosedJaxpr(jaxpr, program.consts), found, rewriter.lost


class _Rewriter:
    def __init__(self, level: int, further: Mapping[Var, Tag]):
        self.level, self.lost, self._further = level, dict[str, str](), further
        # JAX traces a function that is called again only once: equal objects stay equal.
        self._known: dict[int, tuple[Any, Jaxpr, list[Found]]] = {}
        self._scans = 0

    def rewrite(self, jaxpr: Jaxpr) -> tuple[Jaxpr, list[Found]]:
        if id(jaxpr) not in self._known:
            self._known[id(jaxpr)] = jaxpr, *self._rewritten(jaxpr)
        return self._known[id(jaxpr)][1:]

    def _rewritten(self, jaxpr: Jaxpr) -> tuple[Jaxpr, list[Found]]:
        equations: list[JaxprEqn] = []
        found: list[Found] = []
        values: list[Any] = []
        new: dict[Any, Any] = {}  # a value of the jaxpr -> what it is without tags
        depends_on = _Dependencies(jaxpr)

        def plain(atoms: Sequence[Any]) -> list[Any]:
            return [a if isinstance(a, Literal) else new.get(a, a) for a in atoms]

        for old in jaxpr.eqns:
            equation = old.replace(invars=plain(old.invars)) if new else old
            tag = self._tag(equation)
            if tag is not None:
                found.append(Found(tag, (), depends_on(old.invars[1:])))
                if equation.primitive is layer_output_p:
                    new[equation.outvars[0]] = equation.invars[0]
                    values.append(equation.invars[0])
                else:
                    equations.append(equation)
                    values.append(equation.outvars[0])
                continue
            inner, names = self._transform(equation)
            if not names:
                equations.append(equation)
                continue
            replaced, results = inner(equation)
            equations.extend(replaced)
            count = len(equation.outvars)
            new.update(zip(equation.outvars, results[:count], strict=True))
            for name, value in zip(names, results[count:], strict=True):
                owners = [old.invars[i] for i in sorted(name.owners)]
                found.append(name._replace(owners=depends_on(owners)))
                values.append(value)
        if self._further:
            made = (var for old in jaxpr.eqns for var in old.outvars)
            for var in (var for var in (*jaxpr.invars, *made) if var in self._further):
                found.append(Found(self._further[var]))
                values += plain([var])
        if not found:
            return jaxpr, []
        # Without debug information, which names the results one by one.
        outvars = [*plain(jaxpr.outvars), *values]
        return jaxpr.replace(eqns=equations, outvars=outvars, debug_info=_unnamed(jaxpr)), found

    def _tag(self, equation: JaxprEqn) -> Tag | None:
        if equation.primitive is layer_output_p:
            tag: Tag = equation.params["tag"]
            return tag if tag.level == self.level else None
        if equation.primitive.name == "name" and not self.level:  # jax.ad_checkpoint's
            return Tag(equation.params["name"], "name")
        return None

    def _transform(self, equation: JaxprEqn) -> tuple[Any, list[Found]]:
        """Returns what replaces an equation that runs programs with tags inside, and these tags."""
        programs = list(inner_programs(equation.params))
        if not programs:
            return None, []
        name, params = equation.primitive.name, equation.params
        if params.get("differentiated"):
            return None, []  # a checkpoint whose backward pass computes the values once more
        if name in _CALLS and (wrap := _CALLS[name](params)) is not None:
            (program,) = programs
            jaxpr, found = self.rewrite(program.jaxpr)
            if name == "scan":
                consts, carry = _scan_sizes(params)
                self._scans += 1
                key = self._scans
                found = [
                    f._replace(
                        scans=(
                            Scan(key, params["length"], any(i >= consts + carry for i in f.owners)),
                            *f.scans,
                        )
                    )
                    for f in found
                ]
            call = wrap(jaxpr_as_fun(ClosedJaxpr(jaxpr, program.consts)))
            return partial(_inlined, call), found
        for program in programs:
            for tag in tags_of(program.jaxpr, self.level):
                if tag.kind == "layer":
                    self.lost.setdefault(tag.name, name)
        return None, []


class _Dependencies:
    """Which arguments of a jaxpr a value depends on."""

    def __init__(self, jaxpr: Jaxpr):
        self._arguments = {var: i for i, var in enumerate(jaxpr.invars)}
        self._equations = jaxpr.eqns
        self._producers: dict[Any, JaxprEqn] = {}

    def __call__(self, atoms: Sequence[Any]) -> frozenset[int]:
        waiting = [atom for atom in atoms if isinstance(atom, Var)]
        if all(atom in self._arguments for atom in waiting):
            return frozenset(self._arguments[atom] for atom in waiting)
        if not self._producers:
            self._producers = {var: e for e in self._equations for var in e.outvars}
        known, arguments = set(waiting), set[int]()
        while waiting:
            atom = waiting.pop()
            if atom in self._arguments:
                arguments.add(self._arguments[atom])
            elif (equation := self._producers.get(atom)) is not None:
                new = {a for a in equation.invars if isinstance(a, Var)} - known
                known |= new
                waiting.extend(new)
        return frozenset(arguments)


def inner_programs(params: dict[str, Any]) -> Iterator[ClosedJaxpr]:
    """Yields the programs among the parameters of an equation."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item
            elif isinstance(item, Jaxpr):
                yield ClosedJaxpr(item, ())


def tags_of(jaxpr: Jaxpr, level: int) -> Iterator[Tag]:
    """Yields the tags of a program, of a level."""
    for equation in jaxpr.eqns:
        if equation.primitive is layer_output_p:
            if equation.params["tag"].level == level:
                yield equation.params["tag"]
        else:
            for program in inner_programs(equation.params):
                yield from tags_of(program.jaxpr, level)


def _unnamed(jaxpr: Jaxpr) -> Any:
    return jaxpr.debug_info._replace(result_paths=None)


def _inlined(call: Callable[..., Any], equation: JaxprEqn) -> tuple[list[JaxprEqn], list[Any]]:
    """Returns the equations of a call in place of an equation, and the call's results."""
    traced = jax.make_jaxpr(call)(*(atom.aval for atom in equation.invars))
    new: dict[Any, Any] = dict(zip(traced.jaxpr.invars, equation.invars, strict=True))
    if traced.consts:
        raise NotImplementedError(
            "a program inside a transform must have no constants, got "
            f"{len(traced.consts)}. Pass them as arguments."
        )

    def renamed(atom: Any) -> Any:
        return atom if isinstance(atom, Literal) else new.get(atom, atom)

    equations = [
        e.replace(
            invars=[renamed(a) for a in e.invars],
            ctx=equation.ctx,
            source_info=equation.source_info,
        )
        for e in traced.jaxpr.eqns
    ]
    return equations, [renamed(a) for a in traced.jaxpr.outvars]


def _scan_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """Returns the numbers of constants and of carried values of a scan."""
    if "num_consts" in params:  # before JAX 0.11
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def _as_scan(params: dict[str, Any]) -> Any:
    consts, carry = _scan_sizes(params)

    def wrap(body: Callable[..., Any]) -> Callable[..., Any]:
        def scan(*args: Any) -> Any:
            def step(state: Any, xs: Any) -> Any:
                results = body(*args[:consts], *state, *xs)
                return tuple(results[:carry]), tuple(results[carry:])

            last, ys = jax.lax.scan(
                step,
                tuple(args[consts : consts + carry]),
                tuple(args[consts + carry :]),
                length=params["length"],
                reverse=params["reverse"],
                unroll=params["unroll"],
            )
            return [*last, *ys]

        return scan

    return wrap


def _as_jit(params: dict[str, Any]) -> Any:
    # Shardings belong to the caller's program: the call stays as it is. Only the outermost call
    # donates arguments.
    given = (*params["in_shardings"], *params["out_shardings"])
    plain = all(type(s).__name__ == "UnspecifiedValue" for s in given)
    layouts = (*params["in_layouts"], *params["out_layouts"])
    if not plain or any(layouts):
        return None
    name = params["name"]

    def wrap(body: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            return body(*args)

        call.__name__ = call.__qualname__ = name
        return jax.jit(call, keep_unused=params["keep_unused"])

    return wrap


def _as_checkpoint(params: dict[str, Any]) -> Any:
    return partial(jax.checkpoint, prevent_cse=params["prevent_cse"], policy=params["policy"])


def _as_call(params: dict[str, Any]) -> Any:
    return lambda body: body


# Primitives whose inner program may return more, with a function of their parameters that returns
# the transform, or None where the values cannot leave. Not among them: `cond` and `while`, whose
# values exist only in the branch or iteration, and custom derivatives, whose rules count results.
_CALLS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "scan": _as_scan,
    "jit": _as_jit,
    "remat2": _as_checkpoint,
    "closed_call": _as_call,
    "eval_jaxpr": _as_call,  # closed_call since JAX 0.12
}
