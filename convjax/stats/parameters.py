"""Statistics of parameters, their gradients and their updates, computed inside the jitted step.

How large an update is beside the weights that it changes, and how large the gradients of one layer
are beside another's, say more of a training than the loss does.
"""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from convjax._checks import check_array
from convjax.optim.optimizers import path_name
from convjax.stats.activations import count, count_dtype, group_starts

Array = npt.NDArray[Any]

# Magnitudes in bins of a factor of 2, from 2^-34 (6e-11) to 2^6 (64). Powers of two, because the
# bin of a float32 is then its exponent: exact, and a shift instead of a logarithm.
LOG_BINS = 40
LOG_FIRST = -34

_NORMS = ("weight_norm", "grad_norm", "update_norm")
_HISTOGRAMS = ("grad_hist", "update_hist")


class Norms(NamedTuple):
    """What is kept of P parameters at one step; None what was not asked for.

    Norms are Euclidean, over all elements of a parameter; the weights are those before the update.
    """

    weight_norm: jax.Array  # (P,)
    grad_norm: jax.Array | None  # (P,)
    update_norm: jax.Array | None  # (P,)
    grad_hist: jax.Array | None  # int32 counts (P, 42) of |g|: under, 40 bins, over
    update_hist: jax.Array | None  # int32 counts (P, 42) of |new − old|


class Described(NamedTuple):
    """The parameters of a tree: paths with dots, elements and axes of each."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    ndims: tuple[int, ...]


@partial(jax.tree_util.register_dataclass, data_fields=["stats"], meta_fields=["of"])
@dataclass(frozen=True)
class ParameterStats:
    """Statistics of P parameters at one step; a tree of arrays for JAX, so that a step may return
    it.

    Attributes:
      of: which parameters.
      stats: every field has the first axis P.
    """

    of: Described
    stats: Norms


def parameter_stats(
    params: Any, *, grads: Any = None, updated: Any = None, histogram: bool = True
) -> ParameterStats:
    """Returns the statistics of each parameter, to be called within the jitted step.

    Args:
      params: a tree of arrays, before the update: the params of Linen or Optax, or the
        `nnx.state(model, nnx.Param)` of an NNX model.
      grads: a tree of the same structure.
      updated: the same tree after the update; its difference from params is the update.
      histogram: False leaves out the histograms of magnitudes.

    Raises:
      TypeError: if a parameter is no array.
      ValueError: if neither gradients nor updates are given, there is no parameter, or the trees
        differ in structure or shapes.
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
    """Returns names, sizes and axes of the leaves of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return Described(
        tuple(path_name(path) for path, _ in leaves),
        tuple(x.size for _, x in leaves),
        tuple(x.ndim for _, x in leaves),
    )


def _norm(leaves: list[Any]) -> jax.Array:
    """Returns the Euclidean norms, in float32, (P,)."""
    return jnp.stack([jnp.linalg.norm(x.astype(jnp.float32).reshape(-1)) for x in leaves])


def _magnitudes(leaves: list[Any]) -> jax.Array:
    """Counts magnitudes by powers of two, int32 (P, 42); zeros are under, NaNs nowhere."""
    return jnp.stack([_magnitude_counts(x.astype(jnp.float32).reshape(-1)) for x in leaves])


def _magnitude_counts(x: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(jnp.abs(x), jnp.int32)
    exponent = (bits >> 23) - 127  # of 2^exponent ≤ |x|; −127 for zero, 128 for infinity
    index = jnp.clip(exponent - LOG_FIRST + 1, 0, LOG_BINS + 1)
    return count(jnp.where(jnp.isnan(x), LOG_BINS + 2, index), LOG_BINS + 2)


@dataclass(frozen=True, repr=False)
class ParameterRecord:
    """S rows of statistics of P parameters; a row may hold several merged steps.

    Attributes:
      names: of the parameters, paths with dots.
      sizes, ndims: (P,) elements and axes of each.
      watched: (S,) the first of the steps of each row.
      watched_count: (S,) how many steps these were.
      weight_norm, grad_norm, update_norm: (S, P), root mean squares over the steps of a row. Norms
        that were not asked for have no rows.
      grad_hist, update_hist: (S, P, 42) counts of magnitudes: under 2^-34, forty bins of a factor
        of 2, and from 2^6 on. Those that were not asked for have no rows.
    """

    names: tuple[str, ...]
    sizes: Array
    ndims: Array
    watched: Array
    watched_count: Array
    weight_norm: Array
    grad_norm: Array
    update_norm: Array
    grad_hist: Array
    update_hist: Array

    def __repr__(self) -> str:
        rows, parameters = len(self.watched), len(self.names)
        return f"ParameterRecord({rows:,} rows, {parameters:,} parameters)"

    @property
    def kernels(self) -> Array:
        """Which of the parameters are kernels and matrices: neither biases nor scales, (P,)."""
        return np.asarray(self.ndims > 1)

    @property
    def update_ratio(self) -> Array:
        """The norm of the update over that of the weights, (S, P); infinite where these are zero.

        Karpathy's rule of thumb is 1e-3: https://cs231n.github.io/neural-networks-3/#ratio

        Raises:
          ValueError: if the record has no updates.
        """
        if len(self.update_norm) < len(self.watched):
            raise ValueError(
                "record must hold updates, got none. Train with Watch(updates=True), or give "
                "parameter_stats the updated parameters."
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.update_norm / self.weight_norm)

    @property
    def grad_rms(self) -> Array:
        """The root mean square of a parameter's gradient, (S, P)."""
        return np.asarray(self.grad_norm / np.sqrt(self.sizes))

    @property
    def hist_edges(self) -> Array:
        """Edges of the histograms' bins, shape (41,): powers of two."""
        return 2.0 ** np.arange(LOG_FIRST, LOG_FIRST + LOG_BINS + 1)

    def between(self, start: int, stop: int) -> "ParameterRecord":
        """Returns the rows that begin at the steps from `start` to before `stop`, counted anew."""
        inside = slice(*np.searchsorted(self.watched, (start, stop)))
        cut = {name: getattr(self, name)[inside] for name in _ROWS}
        return replace(self, **cut | {"watched": cut["watched"] - start})

    def merged(self, first: Array) -> "ParameterRecord":
        """Returns the record with rows merged into those that begin at the steps `first`."""
        if not len(self.watched):
            return self
        starts = group_starts(first, self.watched)
        counts = self.watched_count.astype(np.float64)
        total = np.add.reduceat(counts, starts)

        def root_mean_square(norm: Array) -> Array:
            if not len(norm):
                return norm
            with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
                squares = counts[:, None] * np.asarray(norm, np.float64) ** 2
                mean = np.add.reduceat(squares, starts) / total[:, None]
                return np.sqrt(mean).astype(np.float32)

        def summed(hist: Array) -> Array:
            dtype = count_dtype(total[:, None] * self.sizes)
            return np.add.reduceat(hist, starts, dtype=dtype) if len(hist) else hist

        changed: dict[str, Any] = {
            "watched": self.watched[starts],
            "watched_count": np.add.reduceat(self.watched_count, starts),
            **{name: root_mean_square(getattr(self, name)) for name in _NORMS},
            **{name: summed(getattr(self, name)) for name in _HISTOGRAMS},
        }
        return replace(self, **changed)

    @classmethod
    def from_steps(cls, of: Described, watched: Array, stats: Norms) -> "ParameterRecord":
        """Makes a record of statistics whose first axis is the watched step."""

        def column(name: str) -> Array:
            value = getattr(stats, name)
            if value is not None:
                return np.asarray(value)
            bins = (LOG_BINS + 2,) if name in _HISTOGRAMS else ()
            return np.zeros((0, len(of.names), *bins), np.int32 if bins else np.float32)

        return cls(
            of.names,
            np.array(of.sizes, np.int64),
            np.array(of.ndims, np.int64),
            np.asarray(watched, np.int64),
            np.ones(len(watched), np.int64),
            **{name: column(name) for name in Norms._fields},
        )

    @classmethod
    def joined(cls, records: "list[ParameterRecord]", before: list[int]) -> "ParameterRecord":
        """Joins records of successive parts of a training.

        Args:
          before: for each the number of steps before its first.

        Raises:
          ValueError: if they are of different parameters or quantities.
        """
        kinds = {
            (r.names, tuple(r.sizes), *(len(getattr(r, name)) > 0 for name in _KEPT))
            for r in records
            if len(r.watched)
        }
        if len(kinds) > 1:
            raise ValueError(
                "records must be of one training: the same parameters and the same quantities."
            )
        columns = {name: [getattr(record, name) for record in records] for name in _ROWS}
        columns["watched"] = [w + b for w, b in zip(columns["watched"], before, strict=True)]
        joined: dict[str, Any] = {name: np.concatenate(c) for name, c in columns.items()}
        return replace(records[0], **joined)


_KEPT = (*_NORMS[1:], *_HISTOGRAMS)
_ROWS = tuple(f.name for f in fields(ParameterRecord) if f.name not in Described._fields)
