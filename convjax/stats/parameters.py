"""Statistics of parameters, their gradients and their updates, computed inside the jitted step.

The size of an update relative to the weights that it changes, and the size of one layer's gradient
relative to another's, reveal faults that the loss does not show.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from convjax._checks import check_array
from convjax.optim.optimizers import path_name
from convjax.stats.activations import count

# Magnitudes have bins of a factor of 2, from 2^-34 (6e-11) to 2^6 (64). Powers of two, because the
# bin of a float32 is then its exponent: exact, and a shift instead of a logarithm.
LOG_BINS = 40
LOG_FIRST = -34


class Norms(NamedTuple):
    """The statistics of P parameters at one step; those that were not asked for are None.

    Norms are Euclidean, over all elements of a parameter. The weights are those before the update.
    """

    weight_norm: Float[Array | np.ndarray, "... P"]
    grad_norm: Float[Array | np.ndarray, "... P"] | None
    update_norm: Float[Array | np.ndarray, "... P"] | None
    # int32 counts of |gradient| and |new − old|: under, 40 bins, over
    grad_hist: Int[Array | np.ndarray, "... P 42"] | None
    update_hist: Int[Array | np.ndarray, "... P 42"] | None


class Described(NamedTuple):
    """The parameters of a tree."""

    names: tuple[str, ...]  # paths with dots
    sizes: tuple[int, ...]  # number of elements
    ndims: tuple[int, ...]  # number of axes


@partial(jax.tree_util.register_dataclass, data_fields=["stats"], meta_fields=["of"])
@dataclass(frozen=True)
class ParameterStats:
    """Statistics of P parameters at one step; a pytree, so that a jitted step may return it.

    Attributes:
      of: the parameters.
      stats: their statistics; every field has the first axis P.
    """

    of: Described
    stats: Norms


def parameter_stats(
    params: Any, *, grads: Any = None, updated: Any = None, histogram: bool = True
) -> ParameterStats:
    """Returns the statistics of each parameter; call it within the jitted step.

    Args:
      params: a pytree of arrays, before the update: the params of Linen or Optax, or the
        `nnx.state(model, nnx.Param)` of an NNX model.
      grads: the gradients, a pytree of the same structure.
      updated: the parameters after the update; their difference from params is the update.
      histogram: False leaves out the histograms of magnitudes.

    Raises:
      TypeError: if a parameter is not an array.
      ValueError: if neither grads nor updated is given, there is no parameter, or the trees differ
        in structure or shapes.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import parameter_stats
      >>> params = {"kernel": jnp.array([[3.0, 4.0]])}
      >>> found = parameter_stats(params, grads={"kernel": jnp.array([[0.0, 2.0]])})
      >>> found.of.names, float(found.stats.weight_norm[0]), float(found.stats.grad_norm[0])
      (('kernel',), 5.0, 2.0)
      >>> found.stats.update_norm is None
      True
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        check_array(f"params{jax.tree_util.keystr(path)}", leaf)
    if not jax.tree.leaves(params):
        raise ValueError("params must hold one array or more, got none.")
    if grads is None and updated is None:
        raise ValueError("grads or updated must be given, got neither.")
    structure: Any = jax.tree.structure(params)
    for name, tree in (("grads", grads), ("updated", updated)):
        if tree is not None and jax.tree.structure(tree) != structure:
            raise ValueError(f"{name} must have the structure of params, got another tree.")
        if tree is not None and (shapes := _shapes(tree)) != _shapes(params):
            raise ValueError(
                f"{name} must have the shapes of params, got {shapes} for {_shapes(params)}."
            )
    before = jax.tree.leaves(params)
    changes = None
    if updated is not None:
        changes = [new - old for new, old in zip(jax.tree.leaves(updated), before, strict=True)]
    gradients = None if grads is None else jax.tree.leaves(grads)
    hist = _magnitudes if histogram else lambda leaves: None
    norms = Norms(
        weight_norm=_norm(before),
        grad_norm=None if gradients is None else _norm(gradients),
        update_norm=None if changes is None else _norm(changes),
        grad_hist=None if gradients is None else hist(gradients),
        update_hist=None if changes is None else hist(changes),
    )
    return ParameterStats(describe(params), norms)


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def describe(params: Any) -> Described:
    """Returns the names, sizes and numbers of axes of the leaves of a pytree."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return Described(
        tuple(path_name(path) for path, _ in leaves),
        tuple(x.size for _, x in leaves),
        tuple(x.ndim for _, x in leaves),
    )


def _norm(leaves: list[Any]) -> Float[Array, " P"]:
    """Returns the Euclidean norms, in float32."""
    return jnp.stack([jnp.linalg.norm(x.astype(jnp.float32).reshape(-1)) for x in leaves])


def _magnitudes(leaves: list[Any]) -> Int[Array, "P 42"]:
    """Counts magnitudes by powers of two; zeros are under, NaNs are not counted."""
    return jnp.stack([_magnitude_counts(x.astype(jnp.float32).reshape(-1)) for x in leaves])


def _magnitude_counts(x: Float[Array, " N"]) -> Int[Array, " 42"]:
    bits = jax.lax.bitcast_convert_type(jnp.abs(x), jnp.int32)
    exponent = (bits >> 23) - 127  # of 2^exponent ≤ |x|; −127 for zero, 128 for infinity
    index = jnp.clip(exponent - LOG_FIRST + 1, 0, LOG_BINS + 1)
    return count(jnp.where(jnp.isnan(x), LOG_BINS + 2, index), LOG_BINS + 2)
