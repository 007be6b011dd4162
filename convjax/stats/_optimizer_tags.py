"""The tagged arrays of the optimisers in a training step, and their statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Var

from convjax.nn._harvest import Tag
from convjax.nn._module_calls import LayerCalls
from convjax.nn._written_updates import WrittenUpdate
from convjax.stats._optimizer_calls import OptimizerCall
from convjax.stats._step_arguments import StepArguments, leave_out, only
from convjax.stats.parameters import ParameterStats, applied, parameter_stats
from convjax.stats.watch import Watch


class OptimizerTags:
    """The calls of optimisers in one step; their arrays are tagged.

    In a step that calls none, they are those of updates that it has written out.
    """

    def __init__(self, calls: LayerCalls):
        self._calls = calls
        self.restart()

    def restart(self) -> None:
        """Forgets the calls of a trace that is taken again."""
        self._structures: list[dict[str, Any]] = []

    def report(self, call: OptimizerCall) -> None:
        """Tags the arrays of one call."""
        number = len(self._structures)
        structures: dict[str, Any] = {}
        for name in ("grads", "params", "updates"):
            # A whole model of Equinox among them has functions and settings, too.
            tree = only(lambda leaf: isinstance(leaf, jax.Array), getattr(call, name))
            leaves, structures[name] = jax.tree.flatten(tree)
            for i, leaf in enumerate(leaves):
                self._keep(f"{number}/{name}/{i}", leaf)
        self._structures.append(structures)
        if (done := applied(call.state)) is not None:
            self._keep(f"{number}/applied", done)
        if not number:
            for name, keys in (("learning_rate", ("learning_rate",)), ("momentum", _MOMENTA)):
                found = [v for key in keys for _, v in _state_values(call.state, key)]
                if found and isinstance(found[0], jax.Array) and not found[0].ndim:
                    self._keep(name, found[0])

    def written(self, updates: Sequence[WrittenUpdate], names: Sequence[str]) -> dict[Var, Tag]:
        """Returns the tags of updates that a step has written out, if it calls no optimiser.

        Args:
          updates: of its program.
          names: of their parameters.
        """
        if self._structures or not updates:
            return {}
        arrays = {"params": [update.param for update in updates]}
        arrays["updated"] = [update.new for update in updates]
        gradients = [update.gradient for update in updates if update.gradient is not None]
        if len(gradients) == len(updates):
            arrays["grads"] = gradients
        order = dict(zip(names, range(len(names)), strict=True))
        structure = jax.tree.structure(order)
        self._structures.append(dict.fromkeys(arrays, structure))
        return {
            variables[i]: Tag(f"0/{name}/{place}", "optimizer", self._calls.level)
            for name, variables in arrays.items()
            for place, i in enumerate(jax.tree.leaves(order))
        }

    def _keep(self, name: str, value: jax.Array) -> None:
        self._calls.keep(Tag(name, "optimizer"), value)

    def stats(
        self, watch: Watch, values: Mapping[str, Any], given: StepArguments
    ) -> ParameterStats | None:
        """Returns the statistics of all parameters, from the tagged values by name."""
        if not self._structures:
            leave_out(
                "gradients and updates, and what a loss written by hand compares",
                "the step calls no Optax optimiser, which shows what its parameters are, and "
                "returns no argument with an update added to it. optax.sgd is the update "
                "p - rate * g",
            )
            return None
        trees: dict[str, list[Any]] = {}
        done = [v for name, v in values.items() if name.endswith("/applied")]
        for number, structures in enumerate(self._structures):
            for name, structure in structures.items():
                keys = [f"{number}/{name}/{i}" for i in range(structure.num_leaves)]
                if not all(key in values for key in keys):
                    leave_out(
                        "gradients and updates",
                        "the optimiser is called inside a scan or a branch. Apply "
                        "convjax.watch_step to the inner step",
                    )
                    return None
                tree = jax.tree.unflatten(structure, [values[key] for key in keys])
                if name == "params" and not keys:
                    tree = given.like(trees["grads"][number])
                    if tree is None:
                        leave_out(
                            "gradients and updates",
                            "the optimiser does not get the parameters. Write "
                            "update(grads, opt_state, params)",
                        )
                        return None
                trees.setdefault(name, []).append(tree)
        one = len(self._structures) == 1
        found = {name: of[0] if one else dict(enumerate(of)) for name, of in trees.items()}
        wanted = {"params": True, "grads": watch.gradients}
        kept = {name: tree for name, tree in found.items() if wanted.get(name, watch.updates)}
        if len(kept) < 2:  # what was asked for is not known of updates that are written out
            return None
        stats = parameter_stats(kept.pop("params"), **kept, histogram=watch.histogram)
        return replace(stats, applied=jnp.all(jnp.stack(done))) if done else stats


_MOMENTA = ("momentum", "b1")


def _state_values(state: Any, key: str) -> list[tuple[Any, Any]]:
    return list(optax.tree_utils.tree_get_all_with_path(state, key))
