"""Counts the multiplications of a program, by the call of a layer that they belong to.

Two operations have multiplications that count: products of matrices (dot_general) and convolutions.
Elementwise operations do not count, as usual.

References:
  Fvcore and torchinfo count alike for PyTorch: https://github.com/facebookresearch/fvcore,
  https://github.com/TylerYep/torchinfo.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from convjax.analysis.affine import shape_of
from convjax.analysis.marked_calls import LayerCall, innermost_call
from convjax.ops.geometry import multiplications, transposed_taps

# Operations that compute products which no program shows.
_OPAQUE = frozenset(["ffi_call", "pure_callback", "dot_product_attention_fwd_wrapper"])


@dataclass
class Products:
    """Numbers of multiplications.

    Attributes:
      known: by the innermost call of a layer, in the order in which they first appear; None is the
        program outside of all layers. A call without multiplications has 0.
      unknown: calls with multiplications whose number is unknown: those in a while loop.
    """

    known: Counter[LayerCall | None] = field(default_factory=Counter)
    unknown: set[LayerCall | None] = field(default_factory=set)

    @property
    def layers(self) -> set[str]:
        """Names of the layers that are called."""
        return {of.layer for of in self.known if of and of.layer}

    def add(self, other: "Products", times: int = 1) -> None:
        """Adds the numbers of a program that runs `times` times."""
        for call, number in other.known.items():
            self.known[call] += times * number
        self.unknown |= other.unknown


def count_products(program: ClosedJaxpr | Jaxpr, caller: LayerCall | None = None) -> Products:
    """Returns the multiplications of a program.

    The body of a scan counts once per iteration. Of the branches of a condition, the one with most
    multiplications counts. The body of a while loop runs an unknown number of times.

    Args:
      program: of any function.
      caller: the call of a layer that the program is part of.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from convjax.analysis.products import count_products
      >>> program = jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 5)))
      >>> count_products(program).known
      Counter({None: 30})
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    found = Products()
    for equation in jaxpr.eqns:
        call = innermost_call(equation.source_info.name_stack) or caller
        found.known[call] += _of_operation(equation)
        name, inner = equation.primitive.name, list(_programs(equation))
        parts = [count_products(part, call) for part in inner]
        if name == "cond" and parts:
            parts = [max(parts, key=lambda part: part.known.total())]
        times = _repetitions(equation)
        for part in parts:
            if times is None:
                computing = {of for of, number in part.known.items() if number}
                found.unknown |= computing | part.unknown
                found.add(Products(Counter(dict.fromkeys(part.known, 0))))
            else:
                found.add(part, times)
        if name in _OPAQUE:
            found.unknown.add(call)
    return found


def _of_operation(equation: JaxprEqn) -> int:
    """Returns the multiplications of one operation, without those of programs inside it."""
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = shape_of(equation.invars[0])
            return _size(equation) * math.prod(shape[axis] for axis in contracted)
        case "ragged_dot" | "ragged_dot_general":
            # Each row of the left matrix meets the matrix of its group alone.
            return _size(equation) * shape_of(equation.invars[0])[-1]
        case "conv_general_dilated":
            return _of_convolution(equation)
    return 0


def _size(equation: JaxprEqn) -> int:
    return math.prod(shape_of(equation.outvars[0]))


def _of_convolution(equation: JaxprEqn) -> int:
    params = equation.params
    image, kernel, output = map(shape_of, (*equation.invars[:2], equation.outvars[0]))
    lhs, rhs, out = params["dimension_numbers"]
    number = output[out[0]] * multiplications([output[axis] for axis in out[2:]], kernel)
    for i, spacing in enumerate(params["lhs_dilation"]):
        if spacing > 1:
            cells, taps = output[out[2 + i]], kernel[rhs[2 + i]]
            number //= cells * taps or 1
            number *= transposed_taps(
                image[lhs[2 + i]],
                cells,
                taps,
                spacing=spacing,
                stride=params["window_strides"][i],
                padding=params["padding"][i][0],
                dilation=params["rhs_dilation"][i],
            )
    return number


def _repetitions(equation: JaxprEqn) -> int | None:
    """Returns how often an operation runs its inner programs; None if that is unknown."""
    params = equation.params
    match equation.primitive.name:
        case "while":
            return None
        case "scan":
            return params["length"]
        case "shard_map":  # the program of one device
            axes = params.get("newly_manual_axes", params["mesh"].axis_names)
            return math.prod(params["mesh"].shape[axis] for axis in axes)
        case "pallas_call":
            grid = params["grid_mapping"].grid
            return math.prod(grid) if all(isinstance(size, int) for size in grid) else None
    return 1


def _programs(equation: JaxprEqn) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr | Jaxpr):
                yield item
