"""ReLU whose gradient needs its output alone."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num


@jax.custom_jvp
@jax.jit
def relu(x: Num[Array, "*axes"]) -> Num[Array, "*axes"]:
    """Returns max(x, 0), with the gradient 0 at 0: `jax.nn.relu`, value by value.

    Its gradient asks whether the output is positive, where `jax.nn.relu` asks the input; see
    `convjax.nn.ReLU`.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (tangent,) = tangents
    y = relu(*primals)
    # XLA writes max(x, 0) > 0 as x > 0 and would keep the input after all. NaN is not positive.
    positive = (y != 0) & (y == y)
    return y, jax.lax.select(positive, tangent, jnp.zeros_like(tangent))
