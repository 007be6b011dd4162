"""What the arguments and results of a training step are, by their names and shapes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convjax._warnings import warn_user
from convjax.nn._module_calls import is_float
from convjax.nn._traced_call import named_arguments
from convjax.optim.optimizers import path_name


class StepArguments:
    """The arguments of a step before it runs.

    Attributes:
      args, kwargs: as given.
      named: by the names of the step's parameters.
    """

    def __init__(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.args, self.kwargs = args, kwargs
        self.named = named_arguments(step, args, kwargs)

    def labels(self, examples: int | None) -> jax.Array | None:
        """Returns the argument with numbers for each example that is named as labels are.

        An item of a tuple has no name: it is taken if it is the only one with one integer per
        example.
        """
        leaves = jax.tree_util.tree_leaves_with_path(dict(self.named), is_leaf=is_model)
        found = [
            (last_name(path), leaf)
            for path, leaf in leaves
            if (_is_integers(leaf) or is_float(leaf))
            and leaf.ndim
            and examples in (None, len(leaf))
        ]
        names = ("y", "label", "target", "class")
        named = [leaf for name, leaf in found if name.startswith(names)]
        unnamed = [
            leaf
            for name, leaf in found
            if not name and leaf.size > 1 and _is_integers(leaf) and leaf.ndim == 1
        ]
        chosen = named or unnamed
        return chosen[0] if len(chosen) == 1 else None

    def images(self, labels: jax.Array | None) -> jax.Array | None:
        """Returns the only argument with several numbers per example, besides the labels.

        Without labels, whose number would be that of the examples, only an argument that is an
        array by itself counts: others are parameters.
        """
        values = dict(self.named)
        leaves = values.values() if labels is None else jax.tree.leaves(values, is_leaf=is_model)
        found = [
            x
            for x in leaves
            if is_float(x)
            and x.ndim > 1
            and x is not labels
            and (labels is None or len(x) == len(labels))
        ]
        return found[0] if len(found) == 1 else None

    def names(self, arrays: Sequence[Any]) -> list[str]:
        """Returns the names of arrays among the arguments, different from each other.

        They are paths with dots in an argument, after its name if they are in several.
        """
        paths: dict[int, tuple[str, str]] = {}
        for argument, value in self.named.items():
            tree = nnx.state(value) if isinstance(value, nnx.Module) else value
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                paths.setdefault(id(leaf), (argument, path_name(path)))
        found = [paths.get(id(x), ("", f"parameters.{i}")) for i, x in enumerate(arrays)]
        if len({argument for argument, _ in found}) == 1 and all(path for _, path in found):
            return [path for _, path in found]
        return [".".join(filter(None, parts)) for parts in found]

    def like(self, tree: Any) -> Any:
        """Returns the only argument, or `params` of one, whose floats are arranged as in a tree."""
        wanted = jax.tree.map(jnp.shape, only(is_float, tree))
        candidates = [
            only(is_float, candidate)
            for value in self.named.values()
            for candidate in (value, getattr(value, "params", None))
        ]
        found = [tree for tree in candidates if jax.tree.map(jnp.shape, tree) == wanted]
        return found[0] if len(found) == 1 else None


def find_loss(result: Any) -> jax.Array | None:
    """Returns the loss among the results of a step, or None with a warning where it is not clear.

    It is the scalar named "loss", or that of another usual name, or the only one whose name ends in
    "loss", or the first without a name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(result, is_leaf=is_model)
    scalars = [
        (_loss_rank(last_name(path)), len(path), i, leaf)
        for i, (path, leaf) in enumerate(leaves)
        if is_float(leaf) and not leaf.ndim
    ]
    if not scalars:
        leave_out("the loss", "the step returns no scalar. Pass loss=lambda result: ...")
        return None
    rank, depth, _, loss = min(scalars, key=lambda scalar: scalar[:3])
    alike = [scalar for scalar in scalars if scalar[:2] == (rank, depth)]
    if rank in _AMBIGUOUS and len(alike) > 1:
        leave_out("the loss", "several scalars may be it. Pass loss=lambda result: ...")
        return None
    return loss


# The names that a loss has, and the ranks in which several scalars are no choice.
_LOSS_NAMES = ("total_loss", "train_loss", "total", "nll", "objective", "cost")
_AMBIGUOUS = (1, 2, 4)


def _loss_rank(name: str) -> int:
    if name == "loss":
        return 0
    if name in _LOSS_NAMES:
        return 1
    if name.endswith("loss"):
        return 2
    return 4 if name else 3


def only(kind: Callable[[Any], bool], tree: Any) -> Any:
    """Returns a tree with None in place of other leaves."""
    return jax.tree.map(lambda leaf: leaf if kind(leaf) else None, tree)


def last_name(path: Any) -> str:
    """Returns the last key or attribute of a path in a tree, "" for an index."""
    last = path[-1] if path else None
    return str(getattr(last, "key", getattr(last, "name", ""))).lower()


def is_model(value: Any) -> bool:
    """Returns whether a value is a module or variable of Flax NNX."""
    return isinstance(value, nnx.Pytree | nnx.Variable)


def _is_integers(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.integer)


def loss_of(result: Any, loss: Callable[[Any], jax.Array] | None) -> jax.Array | None:
    """Returns the loss in what a step returns, None if it is not found; warns if `loss` fails."""
    if loss is None:
        return find_loss(result)
    try:
        return loss(result)
    except Exception as error:
        advice = "loss= is called with what the step returns"
        leave_out("the loss", f"{type(error).__name__}: {error}. {advice}")
        return None


def leave_out(what: str, why: str) -> None:
    """Warns that a watched step records less."""
    warn_user(f"the watched step leaves out {what}: {why}.")
