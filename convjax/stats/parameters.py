"""Statistics of parameters, their gradients and their updates, computed inside the jitted step.

The size of an update relative to the weights that it changes, and the size of one layer's gradient
relative to another's, reveal faults that the loss does not show.
"""

import operator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from convjax._checks import check_array
from convjax.optim.optimizers import path_name
from convjax.stats.parameter_forms import sums_of


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


@partial(jax.tree_util.register_dataclass, data_fields=["stats", "applied"], meta_fields=["of"])
@dataclass(frozen=True)
class ParameterStats:
    """Statistics of P parameters at one step; a pytree, so that a jitted step may return it.

    Attributes:
      of: the parameters.
      stats: their statistics; every field has the first axis P.
      applied: whether the optimiser changed the parameters at this step; False at steps that only
        accumulate gradients, as of `optax.MultiSteps`; None where it always changes them.
    """

    of: Described
    stats: Norms
    applied: Bool[Array | np.ndarray, "..."] | None = None


def parameter_stats(
    params: Any,
    *,
    grads: Any = None,
    updated: Any = None,
    updates: Any = None,
    histogram: bool = True,
) -> ParameterStats:
    """Returns the statistics of each parameter; call it within the jitted step.

    Parameters that are not real floating-point numbers are left out.

    Args:
      params: a pytree of arrays, before the update: the params of Linen or Optax, or the
        `nnx.state(model, nnx.Param)` of an NNX model.
      grads: the gradients, a pytree with the paths of params.
      updated: the parameters after the update; their difference from params is the update.
      updates: the updates themselves, instead of `updated`, as Optax returns them.
      histogram: False leaves out the histograms of magnitudes.

    Raises:
      TypeError: if a parameter is not an array.
      ValueError: if none of grads, updated and updates is given, or both of the latter; if there is
        no parameter, or the trees differ in paths or shapes; if updated holds the very arrays of
        params.

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
    if updated is not None and updates is not None:
        raise ValueError("updated or updates must be given, got both. Optax's updates are enough.")
    if grads is None and updated is None and updates is None:
        raise ValueError("grads or updated must be given, got neither.")
    kept = _floating(params)
    if not kept:
        raise ValueError(
            "params must hold one array or more of real floating-point numbers, got none."
        )
    before = [leaf for _, leaf in kept]
    trees = {
        name: _matched(name, tree, params, kept)
        for name, tree in (("grads", grads), ("updates", updates), ("updated", updated))
        if tree is not None
    }
    if updated is not None and all(map(operator.is_, trees["updated"], before)):
        raise ValueError(
            "updated must hold the parameters after the update, got the very arrays of params: the "
            "two are one state, as nnx.state(model, nnx.Param) before and after optimizer.update, "
            "which share the model's variables; or what optax.apply_updates returned was not kept. "
            "Pass updates=, those of Optax, or take a copy before the update: "
            "jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))."
        )
    return ParameterStats(describe(params), _norms({"params": before, **trees}, histogram))


def describe(params: Any) -> Described:
    """Returns the names, sizes and numbers of axes of the parameters that have statistics."""
    kept = _floating(params)
    return Described(
        tuple(path_name(path) for path, _ in kept),
        tuple(x.size for _, x in kept),
        tuple(x.ndim for _, x in kept),
    )


def applied(opt_state: Any) -> Bool[Array, ""] | None:
    """Returns whether the optimiser changed the parameters at the last step.

    Args:
      opt_state: of Optax after the update, or an `nnx.Optimizer`.

    Returns:
      Whether no `optax.MultiSteps` in it waits for more gradients; None if there is none.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from convjax.stats.parameters import applied
      >>> transform, params = optax.MultiSteps(optax.sgd(0.1), 2), jnp.ones(3)
      >>> state = transform.init(params)
      >>> for _ in range(3):
      ...     _, state = transform.update(params, state, params)
      ...     print(applied(state))
      False
      True
      False
      >>> applied(optax.sgd(0.1).init(params)) is None
      True
    """
    # By path, because an NNX state of an optimiser has these names but not the class.
    leaves = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(opt_state)}
    waiting = [
        x
        for name, x in leaves.items()
        if (parts := name.rpartition("mini_step"))[1:] == ("mini_step", "")
        and f"{parts[0]}gradient_step" in leaves
    ]
    return jnp.all(jnp.stack(waiting) == 0) if waiting else None


def _floating(params: Any) -> list[tuple[Any, Any]]:
    """Returns the paths and arrays of the parameters that have statistics."""
    found = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in found:
        check_array(f"params{jax.tree_util.keystr(path)}", leaf)
    return [(path, x) for path, x in found if jnp.issubdtype(x.dtype, jnp.floating)]


def _matched(
    argument: str, tree: Any, params: Any, kept: list[tuple[Any, Any]]
) -> list[Shaped[Array, "..."]]:
    """Returns the arrays of a tree at the paths that are kept of params.

    Trees of other containers match by the names of paths: an NNX state and a dictionary.
    """
    found = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    names = [path_name(path) for path, _ in kept]
    every = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    if odd := sorted((set(names) - set(found)) | (set(found) - every)):
        raise ValueError(
            f"{argument} must have the structure of params, got a tree that differs in "
            f"{', '.join(map(repr, odd))}."
        )
    for name, (_, x) in zip(names, kept, strict=True):
        if jnp.shape(found[name]) != x.shape:
            raise ValueError(
                f"{argument} must have the shapes of params, got {jnp.shape(found[name])} for "
                f"{x.shape} in {name!r}."
            )
    return [found[name] for name in names]


def _norms(trees: dict[str, list[Any]], histogram: bool) -> Norms:
    """Returns the statistics, given the leaves of each tree of `parameter_stats`."""
    arrays = {name: list(map(jnp.asarray, leaves)) for name, leaves in trees.items()}
    squares, hists = sums_of(arrays, histogram=histogram)
    return Norms(
        weight_norm=jnp.sqrt(squares["params"]),
        grad_norm=jnp.sqrt(squares["grads"]) if "grads" in squares else None,
        update_norm=jnp.sqrt(squares["updates"]) if "updates" in squares else None,
        grad_hist=hists.get("grads"),
        update_hist=hists.get("updates"),
    )
