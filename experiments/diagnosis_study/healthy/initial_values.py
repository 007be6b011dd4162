"""The usual initial parameters, drawn by NumPy.

JAX compiles a program for each shape that it draws, which takes longer than the training. These
functions take the arguments of an initialiser of Flax, outside a trace.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Initializer = Callable[..., jax.Array]


def _generator(key: jax.Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def normal(std: float) -> Initializer:
    """Returns an initialiser with a standard deviation.

    Examples:
      >>> float(normal(0.02)(jax.random.key(0), (1000,)).std())
      0.0...
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jnp.asarray(std * _generator(key).standard_normal(shape), dtype)

    return draw


def lecun_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Returns a kernel (..., outputs) that keeps the variance of its inputs."""
    return normal(np.prod(shape[:-1]) ** -0.5)(key, shape, dtype)


def orthogonal(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Returns a matrix whose rows or columns are orthonormal."""
    rows, columns = shape
    large = (max(shape), min(shape))
    q, r = np.linalg.qr(_generator(key).standard_normal(large))
    q *= np.sign(np.diag(r))  # without this the signs would not be drawn evenly
    return jnp.asarray(q if rows >= columns else q.T, dtype)
