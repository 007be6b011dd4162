"""Optax optimisers whose learning rate and momentum are values of their state.

`optax.inject_hyperparams` keeps both in the optimiser's state. The training loop writes the values
of the schedules there before each step, so that another rate, schedule or number of steps needs no
compilation, and the record reads there what was applied. The state also holds weight decay and
Adam's eps, which a sweep may vary in one program. b2 is a constant of the program: 1 − b2 of a
float32 value in the state would be another number.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from convjax._checks import (
    check_function,
    check_not_negative,
    check_number,
    describe_value,
)
from convjax._precision import at_least_float32

# A pytree of parameters.
Params = Any


class Optimizer(NamedTuple):
    """An Optax optimiser with learning rate and momentum in its state.

    Attributes:
      transform: made by `optax.inject_hyperparams`, with a hyperparameter "learning_rate".
      momentum_name: the name of the momentum among the hyperparameters, such as "b1"; None if no
        schedule sets it.
    """

    transform: optax.GradientTransformation
    momentum_name: str | None

    def set(self, state: Any, learning_rate: Float[Array, ""], momentum: Float[Array, ""]) -> Any:
        """Returns the optimiser's state with the learning rate and momentum of its next step."""
        values = {"learning_rate": learning_rate}
        if self.momentum_name is not None:
            values[self.momentum_name] = momentum
        held = state.hyperparams
        return state._replace(
            hyperparams=held | {name: v.astype(held[name].dtype) for name, v in values.items()}
        )

    def with_scalars(self, state: Any, values: Mapping[str, Any]) -> Any:
        """Returns the optimiser's state with other scalars, which stay until they are set again.

        Args:
          state: of `transform`.
          values: numbers by their names in the state, such as "weight_decay".

        Raises:
          ValueError: if the state has no scalar of a name, or `set` writes it.
        """
        held = state.hyperparams
        free = sorted(held.keys() - {"learning_rate", self.momentum_name})
        if not values.keys() <= set(free):
            raise ValueError(
                f"scalars must be among {', '.join(free) or 'none'}, which are in the optimiser's "
                f"state, got {', '.join(sorted(values))}. Rate and momentum are columns of the "
                "table; optax.inject_hyperparams puts other scalars into the state."
            )
        return state._replace(
            hyperparams=held
            | {name: jnp.asarray(v, held[name].dtype) for name, v in values.items()}
        )

    def applied(self, state: Any) -> tuple[Array, Array]:
        """Returns (learning rate, momentum) of the last step, as they are in the state.

        A momentum that no schedule sets is NaN.
        """
        rate = state.hyperparams["learning_rate"]
        if self.momentum_name is None:
            return rate, jnp.full_like(rate, jnp.nan)
        return rate, state.hyperparams[self.momentum_name]


def decays(params: Params) -> Any:
    """Returns for each parameter whether weight decay applies: to matrices and kernels.

    Vectors do not decay: biases and the parameters of normalisations (fastai's `wd_bn_bias=False`).
    """
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def adam(
    *,
    b2: float = 0.99,
    eps: float = 1e-5,
    weight_decay: float = 0.01,
    group_scale: Callable[[Params], Any] | None = None,
) -> Optimizer:
    """Returns fastai's default optimiser: Adam with decoupled weight decay; the momentum is b1.

    With the gradient g, m ← b1·m + (1 − b1)·g and v ← b2·v + (1 − b2)·g². Both are corrected for
    their bias with the current b1 and b2, to m̂ and v̂. Then
    p ← p − lr·(m̂/(√v̂ + eps) + weight_decay·p), without decay for biases and the parameters of
    normalisations. This is `optax.adamw` with other constants.

    Args:
      b2: share of the old mean square that is kept, at least 0 and below 1.
      eps: added outside the root.
      weight_decay: decay per unit of learning rate.
      group_scale: a function from the parameters to the factor of each parameter's learning rate,
        as `convjax.group_scale` makes it; None for one learning rate.

    Raises:
      TypeError: if a number is not a number, or `group_scale` not a function.
      ValueError: if b2 is not at least 0 and below 1, or another number is negative or not finite.

    References:
      https://docs.fast.ai/optimizer.html#Adam; Loshchilov and Hutter, "Decoupled Weight Decay
      Regularization", https://arxiv.org/abs/1711.05101.

    Examples:
      The first step is `lr·g/(|g| + eps)`, whatever b1 and b2:

      >>> import convjax, jax.numpy as jnp
      >>> optimizer = convjax.adam()
      >>> params, gradient = jnp.array([1.0, 1.0]), jnp.array([0.5, -3.0])
      >>> state = optimizer.transform.init(params)
      >>> state = optimizer.set(state, jnp.float32(0.1), jnp.float32(0.9))
      >>> updates, state = optimizer.transform.update(gradient, state, params)
      >>> [round(float(update), 4) for update in updates]
      [-0.1, 0.1]
      >>> [round(float(value), 4) for value in optimizer.applied(state)]
      [0.1, 0.9]
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
    return Optimizer(_in_float32(optax.inject_hyperparams(build)(**scalars)), "b1")


def sgd(
    *,
    weight_decay: float = 0.0,
    group_scale: Callable[[Params], Any] | None = None,
) -> Optimizer:
    """Returns SGD with momentum.

    With the gradient g, m ← momentum·m + g + weight_decay·p; then p ← p − lr·m. This is PyTorch's
    `torch.optim.SGD`, whose decay is coupled through the gradient, except that biases and the
    parameters of normalisations do not decay, as in `adam`.

    Args:
      weight_decay: factor of the decay.
      group_scale: as for `adam`.

    Raises:
      TypeError: if weight_decay is not a number, or `group_scale` not a function.
      ValueError: if weight_decay is negative or not finite.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> optimizer = convjax.sgd()
      >>> params, gradient = jnp.zeros(1), jnp.ones(1)
      >>> state = optimizer.transform.init(params)
      >>> for step in range(2):  # −0.1·1, then −0.1·(0.5·1 + 1)
      ...     state = optimizer.set(state, jnp.float32(0.1), jnp.float32(0.5))
      ...     updates, state = optimizer.transform.update(gradient, state, params)
      ...     print(round(float(updates[0]), 4))
      -0.1
      -0.15
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
    return Optimizer(_in_float32(optax.inject_hyperparams(build)(**scalars)), "momentum")


# What optimisers of Optax call the share of the momentum that is kept.
MOMENTUM_NAMES = ("momentum", "b1", "beta")


def from_optax(
    make: Callable[..., Any], *, momentum: str | None = "auto", **settings: Any
) -> Optimizer:
    """Returns any optimiser of Optax as one whose rate and momentum follow the schedules.

    Args:
      make: a function with the argument `learning_rate` that returns a transformation, such as
        `optax.lion`, `optax.contrib.muon`, or a lambda around `optax.chain` or `optax.MultiSteps`.
      momentum: the name of the argument that the schedule's momentum is written to; None for none,
        which leaves `make` its own. "auto" takes the first of momentum, b1 and beta that `make` has
        with a number as default and that is not among the settings.
      **settings: other arguments of `make`.

    Raises:
      TypeError: if `make` is not such a function, or lacks an argument.

    Examples:
      >>> import convjax, optax
      >>> lion = convjax.from_optax(optax.lion, weight_decay=0.1)  # its b1 follows the momentum
      >>> nesterov = convjax.from_optax(optax.sgd, momentum="momentum", nesterov=True)
      >>> clipped = convjax.from_optax(
      ...     lambda learning_rate: optax.chain(
      ...         optax.clip_by_global_norm(1.0), optax.adamw(learning_rate)
      ...     )
      ... )
      >>> clipped.momentum_name is None
      True
    """
    if isinstance(make, optax.GradientTransformation) or not callable(make):
        raise TypeError(
            f"optimizer must be a function of the learning rate, got {describe_value(make)}. The "
            "rate of a finished transformation is fixed, and no schedule reaches it: pass "
            "convjax.from_optax(optax.adamw, weight_decay=0.01), or convjax.from_optax(lambda "
            "learning_rate: optax.chain(optax.clip(1.0), optax.sgd(learning_rate)))."
        )
    parameters = inspect.signature(make).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    name = momentum
    if momentum == "auto":
        name = next((n for n in MOMENTUM_NAMES if _is_number(parameters.get(n), settings)), None)
    for needed in ("learning_rate", *([] if name is None else [name]), *settings):
        if needed not in parameters and not open_ended:
            raise TypeError(
                f"make must have the argument {needed}, got {getattr(make, '__name__', make)!r} "
                f"with {', '.join(parameters) or 'none'}."
            )

    def build(learning_rate: Any, **scheduled: Any) -> optax.GradientTransformation:
        made = make(learning_rate=learning_rate, **scheduled, **settings)
        if isinstance(made, optax.MultiSteps):
            made = made.gradient_transformation()
        if not isinstance(made, optax.GradientTransformation):
            raise TypeError(
                f"make must return a transformation of Optax, got {describe_value(made)}."
            )
        return made

    if name is None:
        injected = optax.inject_hyperparams(lambda learning_rate: build(learning_rate))
        return Optimizer(_in_float32(injected(learning_rate=0.0)), None)
    injected = optax.inject_hyperparams(
        lambda learning_rate, momentum: build(learning_rate, **{name: momentum})
    )
    return Optimizer(_in_float32(injected(learning_rate=0.0, momentum=0.0)), "momentum")


def _is_number(parameter: inspect.Parameter | None, settings: Mapping[str, Any]) -> bool:
    """Returns whether an argument has a number as default, which no setting replaces."""
    if parameter is None or parameter.name in settings:
        return False
    return isinstance(parameter.default, float) and not isinstance(parameter.default, bool)


def as_optimizer(optimizer: Any) -> Optimizer:
    """Returns an `Optimizer`, made by `from_optax` of a function of the learning rate."""
    if optimizer in (adam, sgd):
        raise TypeError(
            f"optimizer must be Optimizer, got the function {optimizer.__name__}. Call it: "
            f"convjax.{optimizer.__name__}()."
        )
    return optimizer if isinstance(optimizer, Optimizer) else from_optax(optimizer)


def _in_float32(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns a transformation that computes in float32 or wider, and has such a state.

    Optax computes in the dtype of the parameters. In bfloat16 a b1 of 0.95 would be 0.949, and a
    mean square would stop to grow at 256 times its gradients.
    """

    def init(params: Params) -> Any:
        return transform.init(at_least_float32(params))

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Any, Any]:
        return transform.update(at_least_float32(updates), state, at_least_float32(params))

    return optax.GradientTransformation(init, update)


def _check_settings(settings: Mapping[str, float], scale: Any) -> None:
    for name, value in settings.items():
        check_not_negative(name, value)
    if scale is not None:
        check_function("group_scale", scale, "of the parameters, as convjax.group_scale makes it")


def group_scale(rates: Sequence[float], group_of: Callable[[str], int]) -> Callable[[Params], Any]:
    """Returns a function that scales the learning rate of each parameter by its layer group.

    The schedule has the rate of the last group. Group g learns with rates[g]/rates[-1] of it, which
    is the same as fastai's one schedule per group.

    Args:
      rates: highest rate of each group, as from `convjax.group_rates`.
      group_of: a function from a parameter's path, joined by dots ("blocks.0.conv.kernel"), to the
        number of its group, from 0.

    Returns:
      A function from parameters to a tree of factors, for `adam` and `sgd`. It raises ValueError
      if `group_of` returns a number that is not a group.

    Examples:
      >>> import convjax, jax
      >>> from flax import nnx
      >>> model = convjax.ConvNet((1, 2, 3), rngs=nnx.Rngs(0))
      >>> scale = convjax.group_scale((0.01, 0.1), lambda name: int(name.split(".")[1]))
      >>> factors = scale(nnx.state(model, nnx.Param))  # bias and kernel of both blocks
      >>> [round(factor, 4) for factor in jax.tree.leaves(factors)]
      [0.1, 0.1, 1.0, 1.0]
      >>> optimizer = convjax.adam(group_scale=scale)
    """

    def scales(params: Params) -> Any:
        def factor(path: Any, _: Any) -> float:
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
    """Returns a path of `jax.tree_util` joined by dots, such as "blocks.0.conv.kernel".

    The last part "value", the attribute of an NNX Variable, is left out.
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
