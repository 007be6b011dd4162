"""Updates of parameters that a training step has written out, such as p - rate * g.

Without a call of an optimiser nothing names the parameters. They are the arguments that the step
returns with something added to them, or subtracted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Var

from convjax.nn._harvest import inner_programs
from convjax.nn._step_program import CALLS

_SUMS = ("add", "add_any", "sub")
_COPIES = ("convert_element_type", "copy")
_PASSED_ON = (*_COPIES, "neg", "sign")
_INVERSES = ("integer_pow", "pow", "rsqrt")

# What Adam and RMSProp make of the mean of the squared gradients, element by element.
_ELEMENTWISE = ("div", "integer_pow", "max", "mul", "pow", "rsqrt", "sqrt", *_SUMS, *_PASSED_ON)


class WrittenUpdate(NamedTuple):
    """The update of one parameter.

    Attributes:
      param: an argument of the program.
      new: the result of the program that is the parameter after the update.
      gradient: as far as it can be told: what the update is a multiple of, without decay and
        momentum; None if it cannot.
    """

    param: Var
    new: Var
    gradient: Var | None


def written_updates(jaxpr: Jaxpr) -> list[WrittenUpdate]:
    """Returns the updates that a program has written out, in the order of its arguments.

    Rules by hand are recognised: SGD with momentum, Nesterov's and decay, Adam, RMSProp and Lion.
    Averages of what changes, as the running statistics of batch norm, are none.

    Examples:
      >>> import jax
      >>> from convjax.nn._written_updates import written_updates
      >>> program = jax.make_jaxpr(lambda w, x: w - 0.1 * jax.grad(lambda w: w @ x)(w))
      >>> (update,) = written_updates(program(jax.numpy.ones(2), jax.numpy.ones(2)).jaxpr)
      >>> update.gradient.aval.shape
      (2,)
    """
    program = _Program(jaxpr)
    found: dict[Var, WrittenUpdate] = {}
    for new in dict.fromkeys(map(program.source, jaxpr.outvars)):
        update = program.update_of(new)
        if update is not None:
            found.setdefault(update.param, update)
    return [found[var] for var in jaxpr.invars if var in found]


class _Program:
    """Which equation makes each value, where inner calls are parts of the program around them."""

    def __init__(self, jaxpr: Jaxpr):
        self._arguments = set(jaxpr.invars)
        self._made_by: dict[Any, JaxprEqn] = {}
        self._same: dict[Any, Any] = {}  # of a call: its arguments and results, inside and outside
        seen = Counter(map(id, _programs(jaxpr)))
        # A program that is called twice has one name for two values.
        self._follow(jaxpr, {program for program, times in seen.items() if times == 1})

    def _follow(self, jaxpr: Jaxpr, single: set[int]) -> None:
        for equation in jaxpr.eqns:
            self._made_by |= dict.fromkeys(equation.outvars, equation)
            inner = _called(equation)
            if inner is not None and id(inner) in single:
                self._same |= zip(inner.invars, equation.invars, strict=True)
                self._same |= zip(equation.outvars, inner.outvars, strict=True)
                self._follow(inner, single)

    def source(self, atom: Any) -> Var | None:
        """Returns the variable that a value is first named by; None for a constant."""
        while isinstance(atom, Var) and atom in self._same:
            atom = self._same[atom]
        return atom if isinstance(atom, Var) else None

    def update_of(self, new: Var | None) -> WrittenUpdate | None:
        """Returns the update that made a result, None if none did."""
        equation = self._maker(new)
        if new is None or equation is None or _name(equation) not in _SUMS:
            return None
        first, second = equation.invars
        pairs = [(first, second)]
        if equation.primitive.name != "sub":
            pairs.append((second, first))
        for before, added in pairs:
            param, update = self._plain(before), self.source(added)
            if (
                param in self._arguments
                and update is not None
                and _is_float(new)
                and _shape(param) == _shape(new)
                and self._plain(update) not in self._arguments
                and not self._is_average(update, param)
            ):
                return WrittenUpdate(param, new, self._gradient(update, param))
        return None

    def _maker(self, atom: Any) -> JaxprEqn | None:
        return self._made_by.get(self.source(atom))

    def _plain(self, atom: Any) -> Any:
        """Returns the value before conversions of its dtype and shape."""
        while (equation := self._maker(atom)) is not None and _name(equation) in _COPIES:
            atom = equation.invars[0]
        return self.source(atom)

    def _is_average(self, added: Any, param: Any) -> bool:
        """Returns whether what is added is a multiple of a difference from the parameter itself."""
        equation = self._maker(self._unscaled(added, param))
        if equation is None or equation.primitive.name not in _SUMS:
            return False
        return any(self._plain(atom) is param for atom in equation.invars)

    def _unscaled(self, atom: Any, param: Var) -> Any:
        """Returns what a value is a multiple of, element by element."""
        while (equation := self._maker(atom)) is not None:
            name, operands = equation.primitive.name, equation.invars
            if name == "mul":
                tests = self._is_number, lambda operand: self._is_inverse(operand, param)
                factors = next((f for test in tests if any(f := list(map(test, operands)))), [])
                if sum(factors) != 1:
                    break
                atom = operands[1 - factors.index(True)]
            elif name in _PASSED_ON or (
                name == "div"
                and (self._is_number(operands[1]) or self._holds_squares(operands[1], param))
            ):
                atom = operands[0]
            else:
                break
        return self.source(atom)

    def _is_number(self, atom: Any) -> bool:
        equation = self._maker(atom)
        if equation is not None and _name(equation) == "broadcast_in_dim":
            atom = equation.invars[0]
        return not _shape(atom)

    def _is_inverse(self, atom: Any, param: Var) -> bool:
        return _name(self._maker(atom)) in _INVERSES and self._holds_squares(atom, param)

    def _holds_squares(self, atom: Any, param: Var) -> bool:
        """Returns whether a value is made of a mean of squared gradients, element by element.

        That is an argument like the parameter. The variance in batch norm, by whose root gradients
        are divided, too, is none.
        """
        equation = self._maker(atom)
        if equation is None or _name(equation) not in _ELEMENTWISE:
            return False
        return any(
            self._holds_squares(part, param)
            or (self.source(part) in self._arguments - {param} and _shape(part) == _shape(param))
            for part in equation.invars
        )

    def _gradient(self, update: Any, param: Var) -> Var | None:
        """Returns what an update is made of, besides arguments: their decay, and momentum."""
        shape = _shape(update)
        atom = self._unscaled(update, param)
        while (equation := self._maker(atom)) is not None and equation.primitive.name in _SUMS:
            kept = [
                operand
                for operand in equation.invars
                if _shape(operand) and self._unscaled(operand, param) not in self._arguments
            ]
            if (
                len(kept) == 2
                and len({self._gradient(operand, param) for operand in kept} - {None}) == 1
            ):
                kept = kept[:1]  # Nesterov's: the gradient, and the momentum that it is in
            if len(kept) != 1:
                break
            atom = self._unscaled(kept[0], param)
        known = atom is not None and atom not in self._arguments and _shape(atom) == shape
        return atom if known else None


def _name(equation: JaxprEqn | None) -> str:
    return equation.primitive.name if equation is not None else ""


def _called(equation: JaxprEqn) -> Jaxpr | None:
    """Returns the program of a call, from which values can leave."""
    programs = list(inner_programs(equation.params))
    one = equation.primitive.name in CALLS and len(programs) == 1
    return programs[0].jaxpr if one else None


def _programs(jaxpr: Jaxpr) -> Iterator[Jaxpr]:
    """Yields the program of each call in a program."""
    for inner in filter(None, map(_called, jaxpr.eqns)):
        yield inner
        yield from _programs(inner)


def _shape(atom: Any) -> Sequence[int]:
    return tuple(getattr(atom.aval, "shape", ()))


def _is_float(var: Var) -> bool:
    return bool(jnp.issubdtype(getattr(var.aval, "dtype", jnp.int32), jnp.floating))
