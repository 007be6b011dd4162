"""Optimisers in Optax whose rate and momentum are values of their state, not of their code.

`optax.inject_hyperparams` keeps both in the optimiser's state. The training loop writes there what
the schedules say for the step, so that another rate, schedule or number of steps compiles nothing
anew, and the record reads there what was applied. Beside them lies what else a sweep may vary in
one program: weight decay, and Adam's eps. (b2 stays in the code: in float32, 1 − b2 of a value in
the state is another number.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from convjax._checks import check_function, check_number

Params = Any


class Optimizer(NamedTuple):
    """A gradient transformation and what its state calls the momentum."""

    transform: optax.GradientTransformation
    momentum_name: str

    def set(self, state: Any, learning_rate: jax.Array, momentum: jax.Array) -> Any:
        """Returns the optimiser's state with the rate and the momentum for its next step."""
        values = {"learning_rate": learning_rate, self.momentum_name: momentum}
        held = state.hyperparams
        return state._replace(
            hyperparams=held | {name: v.astype(held[name].dtype) for name, v in values.items()}
        )

    def with_scalars(self, state: Any, values: Mapping[str, jax.Array]) -> Any:
        """Returns the optimiser's state with other scalars, kept until they are set again.

        Args:
          values: by the name that the state has for them, such as "weight_decay".

        Raises:
          ValueError: if the state holds no such scalar, or it is one that `set` writes.
        """
        held = state.hyperparams
        free = sorted(held.keys() - {"learning_rate", self.momentum_name})
        if not values.keys() <= set(free):
            raise ValueError(
                f"scalars must be among {', '.join(free) or 'none'}, which the optimiser's state "
                f"holds, got {', '.join(sorted(values))}. Rate and momentum go into the table; "
                "optax.inject_hyperparams brings others into the state."
            )
        return state._replace(
            hyperparams=held
            | {name: jnp.asarray(v, held[name].dtype) for name, v in values.items()}
        )

    def applied(self, state: Any) -> tuple[jax.Array, jax.Array]:
        """Returns (learning rate, momentum) of the last step as the state holds them."""
        return state.hyperparams["learning_rate"], state.hyperparams[self.momentum_name]


def decays(params: Params) -> Any:
    """Tells for each parameter whether weight decay applies: not to biases and norm parameters.

    Those are the vectors; matrices and kernels decay (fastai's `wd_bn_bias=False`).
    """
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def adam(
    *,
    b2: float = 0.99,
    eps: float = 1e-5,
    weight_decay: float = 0.01,
    group_scale: Callable[[Params], Any] | None = None,
) -> Optimizer:
    """Returns fastai's default optimiser: Adam with decoupled weight decay; momentum is b1.

    m = b1·m + (1 − b1)·g and v = b2·v + (1 − b2)·g² are corrected for their start with the current
    b1 and b2; then p ← p − lr·(m/(√v + eps) + weight_decay·p), without decay for biases and norm
    parameters. That is `optax.adamw` with other constants.

    Args:
      b2: share of the old mean square that is kept.
      eps: added outside the root.
      weight_decay: per unit of learning rate.
      group_scale: takes the parameters and returns for each the factor on its learning rate, as
        `group_scale` of this module makes it; None for one rate.

    Raises:
      TypeError: for what is no number, or a group_scale that is no function.
      ValueError: if b2 is not at least 0 and below 1, or another is negative or not finite.

    Reference: https://docs.fast.ai/optimizer.html#Adam; Loshchilov and Hutter,
    https://arxiv.org/abs/1711.05101.
    """

    if not 0 <= check_number("b2", b2) < 1:
        raise ValueError(f"b2 must be at least 0 and below 1, got {b2}.")
    _check_settings({"eps": eps, "weight_decay": weight_decay}, group_scale)

    def build(
        learning_rate: Any, b1: Any, eps: Any, weight_decay: Any
    ) -> optax.GradientTransformation:
        step = optax.adamw(
            learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decays
        )
        return _by_group(step, group_scale)

    scalars = {"learning_rate": 0.0, "b1": 0.0, "eps": eps, "weight_decay": weight_decay}
    return Optimizer(optax.inject_hyperparams(build)(**scalars), "b1")


def sgd(
    *,
    weight_decay: float = 0.0,
    group_scale: Callable[[Params], Any] | None = None,
) -> Optimizer:
    """Returns plain SGD with momentum: m = momentum·m + g + weight_decay·p; p ← p − lr·m.

    This is PyTorch's `torch.optim.SGD` (decay coupled through the gradient), but for the decay of
    biases and norm parameters, which are left alone as in `adam`.

    Reference: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """

    _check_settings({"weight_decay": weight_decay}, group_scale)

    def build(learning_rate: Any, momentum: Any, weight_decay: Any) -> optax.GradientTransformation:
        step = optax.chain(
            optax.add_decayed_weights(weight_decay, decays),
            optax.trace(decay=momentum),
            optax.scale_by_learning_rate(learning_rate),
        )
        return _by_group(step, group_scale)

    scalars = {"learning_rate": 0.0, "momentum": 0.0, "weight_decay": weight_decay}
    return Optimizer(optax.inject_hyperparams(build)(**scalars), "momentum")


def _check_settings(settings: Mapping[str, float], scale: Any) -> None:
    for name, value in settings.items():
        if not 0 <= check_number(name, value) < float("inf"):
            raise ValueError(f"{name} must be 0 or above and finite, got {value}.")
    if scale is not None:
        check_function("group_scale", scale, "of the parameters, as convjax.group_scale makes it")


def group_scale(rates: Sequence[float], group_of: Callable[[str], int]) -> Callable[[Params], Any]:
    """Makes the factors by which layer groups learn slower than the last.

    All groups follow one schedule; group g's rate is the schedule's, which is that of the last
    group, times rates[g]/rates[-1]. That is the same as fastai's one schedule per group.

    Args:
      rates: highest rate per group, from `convjax.optim.schedules.group_rates`.
      group_of: takes a parameter's path, with dots ("blocks.0.conv.kernel"), and returns the
        number of its group.

    Returns:
      A function from parameters to a tree of factors, for `adam` and `sgd`.
    """

    def scales(params: Params) -> Any:
        def factor(path: Any, _: jax.Array) -> float:
            name = path_name(path)
            group = group_of(name)
            if not 0 <= group < len(rates):
                raise ValueError(
                    f"group_of must return a group from 0 to {len(rates) - 1}, "
                    f"got {group!r} for {name!r}."
                )
            return rates[group] / rates[-1]

        return jax.tree_util.tree_map_with_path(factor, params)

    return scales


def path_name(path: Sequence[Any]) -> str:
    """Returns a path of `jax.tree_util` with dots, without the marks of dictionaries and lists.

    NNX puts an array into a variable, of which it is the attribute "value": that is left out.
    """
    if path and getattr(path[-1], "name", None) == "value":
        path = path[:-1]
    return jax.tree_util.keystr(tuple(path), simple=True, separator=".")


def _by_group(
    step: optax.GradientTransformation, scales: Callable[[Params], Any] | None
) -> optax.GradientTransformation:
    if scales is None:
        return step

    def scale(updates: Any, params: Params) -> Any:
        return jax.tree.map(lambda u, factor: u * factor, updates, scales(params))

    return optax.chain(step, optax.stateless(scale))
