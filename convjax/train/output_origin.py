"""What the last operations of a network make its outputs of, read in its traced program."""

from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from convjax.nn._harvest import inner_programs

# Operations that change a value's shape or type alone.
_SHAPES = (
    "broadcast_in_dim convert_element_type copy name reshape sharding_constraint squeeze transpose"
)


class OutputOrigin(NamedTuple):
    """The last operation that computes the outputs.

    Attributes:
      function: "softmax" or "sigmoid", "" for any other.
      maps: the shape of the maps (N, …) that were flattened to the outputs (N, K), if they were.
    """

    function: str = ""
    maps: tuple[int, ...] = ()


def output_origin(program: ClosedJaxpr) -> OutputOrigin:
    """Returns what the first result of a program is made by.

    A softmax is recognised however it is written, as a quotient of exponentials.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from convjax.train.output_origin import output_origin
      >>> output_origin(jax.make_jaxpr(jax.nn.softmax)(jnp.zeros((2, 3)))).function
      'softmax'
      >>> flat = jax.make_jaxpr(lambda x: (2 * x).reshape(2, -1))(jnp.zeros((2, 3, 3, 5)))
      >>> output_origin(flat).maps
      (2, 3, 3, 5)
    """
    found, _ = _walk(program.jaxpr, program.jaxpr.outvars[0], ())
    return found


def _walk(jaxpr: Jaxpr, atom: Any, maps: tuple[int, ...]) -> tuple[OutputOrigin, Any]:
    """Returns the origin of a value, and the argument that it is if nothing computes it."""
    made = {result: equation for equation in jaxpr.eqns for result in equation.outvars}
    while not isinstance(atom, Literal) and atom in made:
        equation = made[atom]
        name, programs = equation.primitive.name, list(inner_programs(equation.params))
        if name in _SHAPES.split():
            aval: Any = equation.invars[0].aval
            before = tuple(aval.shape)
            if name == "reshape" and len(before) == 4 and atom.aval.ndim == 2:
                maps = before
            atom = equation.invars[0]
            continue
        if len(programs) == 1 and len(programs[0].jaxpr.outvars) == len(equation.outvars):
            inner = programs[0].jaxpr
            found, argument = _walk(inner, inner.outvars[equation.outvars.index(atom)], maps)
            outer = equation.invars[-len(inner.invars) :]
            if found.function or argument not in inner.invars or len(outer) != len(inner.invars):
                return found, None
            atom, maps = outer[inner.invars.index(argument)], found.maps
            continue
        function = "sigmoid" if name == "logistic" else ""
        if name == "div" and _primitive(made, equation.invars[0]) == "exp":
            function = "softmax"
        return OutputOrigin(function, maps), None
    return OutputOrigin("", maps), atom


def _primitive(made: Any, atom: Any) -> str:
    equation = None if isinstance(atom, Literal) else made.get(atom)
    return "" if equation is None else str(equation.primitive.name)
