"""Schedules of learning rate and momentum: constant, exponential, one-cycle; rates per layer group.

A schedule is an Optax schedule: a function from the number of a step, counted from 0, to a value.
Learning rates are per step; momenta are shares from 0 to below 1.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from convjax._checks import check_number, check_whole

Anneal = Literal["cos", "linear"]


class Schedules(NamedTuple):
    """The learning rate and the momentum of each step.

    Attributes:
      learning_rate: an Optax schedule, from step to rate.
      momentum: an Optax schedule, from step to b1 for Adam and to the momentum for SGD.
    """

    learning_rate: optax.Schedule
    momentum: optax.Schedule

    def table(self, steps: int) -> dict[str, Float[Array, " T"]]:
        """Returns the values at steps 0 … T − 1: {"learning_rate": (T,), "momentum": (T,)}.

        Args:
          steps: the number T of steps.
        """
        at = jnp.arange(check_whole("steps", steps, 0))
        return {
            name: jnp.broadcast_to(jnp.asarray(schedule(at), float), at.shape)
            for name, schedule in self._asdict().items()
        }


def constant(learning_rate: float, momentum: float = 0.9) -> Schedules:
    """Returns the same learning rate and momentum for all steps, as fastai's `fit`.

    Args:
      learning_rate: positive and finite.
      momentum: at least 0 and below 1; the default is that of fastai's `fit`.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if an argument is out of range.

    Examples:
      >>> import convjax
      >>> convjax.constant(0.5, 0.25).table(3)["learning_rate"].tolist()
      [0.5, 0.5, 0.5]
    """
    _check_rate("learning_rate", learning_rate)
    _check_momentum("momentum", momentum)
    return Schedules(optax.constant_schedule(learning_rate), optax.constant_schedule(momentum))


def exponential(steps: int, start: float, end: float, momentum: float = 0.9) -> Schedules:
    """Returns a learning rate that changes by the same factor at every step.

    At step t of T the rate is start·(end/start)^(t/T), as in fastai's `SchedExp`. The last step is
    T − 1, so that the rate approaches `end` without reaching it; the formula continues beyond T.

    Args:
      steps: number of training steps T, at least 1.
      start: rate at step 0, positive and finite.
      end: rate at step T, positive and finite; below `start` for a decay.
      momentum: of all steps, at least 0 and below 1.

    Raises:
      TypeError: if an argument is not a number, or `steps` is not an integer.
      ValueError: if an argument is out of range.

    References:
      `SchedExp` in https://docs.fast.ai/callback.schedule.html.

    Examples:
      >>> import convjax
      >>> table = convjax.exponential(4, 0.01, 100.0).table(4)
      >>> [round(float(rate), 4) for rate in table["learning_rate"]]
      [0.01, 0.1, 1.0, 10.0]
    """
    check_whole("steps", steps, 1)
    _check_rate("start", start)
    _check_rate("end", end)
    _check_momentum("momentum", momentum)

    def learning_rate(step: jax.typing.ArrayLike) -> Array:
        position = jnp.asarray(step, float) / steps
        return start * (end / start) ** position

    return Schedules(learning_rate, optax.constant_schedule(momentum))


def one_cycle(
    steps: int,
    lr_max: float,
    *,
    div: float = 25.0,
    div_final: float = 1e5,
    pct_start: float = 0.25,
    momentum: tuple[float, float, float] = (0.95, 0.85, 0.95),
    anneal: Anneal = "cos",
) -> Schedules:
    """Returns the one-cycle policy: the rate rises, then falls; the momentum does the reverse.

    The position of step t of T is p = t/T. While p < pct_start, the share of the first phase is
    s = p/pct_start, and the rate goes from a = lr_max/div to b = lr_max. Afterwards
    s = (p − pct_start)/(1 − pct_start), and the rate goes from a = lr_max to b = lr_max/div_final.
    Within a phase the value is

      a + (b − a)·(1 − cos(π·s))/2  with "cos",
      a + (b − a)·s                 with "linear".

    The momentum goes through its three values in the same way. The last step is at p = (T − 1)/T:
    as in fastai, the final value is approached and not reached. From t = T on it is constant.

    Args:
      steps: number of training steps T, at least 1.
      lr_max: highest learning rate, positive and finite.
      div: lr_max divided by the rate at the start, positive.
      div_final: lr_max divided by the rate at the end, positive.
      pct_start: share of the steps in which the rate rises, from 0 to 1. With 0 the rate only
        falls, with 1 it only rises.
      momentum: at the start, at the highest rate and at the end; each at least 0 and below 1.
      anneal: "cos" as in fastai, or "linear" as in the papers.

    Raises:
      TypeError: if an argument is not a number, or `steps` is not an integer.
      ValueError: if an argument is out of range, `momentum` is not three numbers, or `anneal` is
        unknown.

    References:
      Smith, "A disciplined approach to neural network hyper-parameters: part 1",
      https://arxiv.org/abs/1803.09820, and Smith and Topin, "Super-convergence",
      https://arxiv.org/abs/1708.07120, for the linear form; fastai's `fit_one_cycle`,
      https://docs.fast.ai/callback.schedule.html, for the cosine form and all defaults.

    Examples:
      >>> import convjax
      >>> schedules = convjax.one_cycle(8, 1.0, div=4.0, momentum=(0.9, 0.8, 0.95))
      >>> table = schedules.table(8)
      >>> [round(float(rate), 3) for rate in table["learning_rate"]]
      [0.25, 0.625, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067]
      >>> [round(float(momentum), 3) for momentum in table["momentum"]]
      [0.9, 0.85, 0.8, 0.81, 0.838, 0.875, 0.912, 0.94]
    """
    check_whole("steps", steps, 1)
    _check_rate("lr_max", lr_max)
    for name, value in (("div", div), ("div_final", div_final)):
        if not check_number(name, value) > 0:
            raise ValueError(f"{name} must be positive, got {value}.")
    if not 0 <= check_number("pct_start", pct_start) <= 1:
        raise ValueError(f"pct_start must be a share from 0 to 1, got {pct_start}.")
    if not isinstance(momentum, Sequence) or len(momentum) != 3:
        raise ValueError(f"momentum must be three numbers (start, middle, end), got {momentum!r}.")
    for value in momentum:
        _check_momentum("momentum", value)
    if anneal not in get_args(Anneal):
        raise ValueError(f'anneal must be "cos" or "linear", got {anneal!r}.')
    rates = (lr_max / div, lr_max, lr_max / div_final)
    return Schedules(
        _two_phases(steps, rates, pct_start, anneal),
        _two_phases(steps, momentum, pct_start, anneal),
    )


def _two_phases(
    steps: int, values: tuple[float, float, float], pct_start: float, anneal: str
) -> optax.Schedule:
    start, middle, end = values
    # fastai rounds the turning point and the position to float32.
    turn = float(np.float32(pct_start))
    rest = float(np.float32(1 - turn))

    def schedule(step: jax.typing.ArrayLike) -> Array:
        # Optax's one-cycle schedules round the turning point to a whole step and lose a phase if
        # there are few steps; here the position is a real number, as in fastai. fastai rounds it
        # to float32 even in float64 programs, which is visible at the lowest rates.
        position = _single(jnp.clip(jnp.asarray(step, float) / steps, 0.0, 1.0))
        # max avoids 0/0 in a phase of no length (pct_start 0 or 1).
        rising = _single(position / max(turn, 1e-12))
        falling = _single(_single(position - turn) / max(rest, 1e-12))
        return jnp.where(
            position < turn,
            _between(start, middle, rising, anneal),
            _between(middle, end, jnp.clip(falling, 0.0, 1.0), anneal),
        )

    return schedule


def _single(x: Array) -> Array:
    """Rounds to float32 without changing the dtype."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)


def _between(start: float, end: float, share: Array, anneal: str) -> Array:
    if anneal == "cos":
        share = (1 + jnp.cos(jnp.pi * (1 - share))) / 2
    # This form is exact at both ends in float32. start + share·(end − start) would have an error of
    # parts in a thousand at the last rate, which is millions of times smaller than the difference.
    return start * (1 - share) + end * share


def group_rates(lr_max: float | Sequence[float] | slice, groups: int) -> tuple[float, ...]:
    """Returns the highest learning rate of each layer group; the last group is the head.

    Pass the result to `group_scale`, which turns it into factors for `adam` or `sgd`. The schedule
    has the rate of the last group, and every other group follows it in proportion.

    Args:
      lr_max: a number (the same for all groups); a sequence with one rate per group; slice(last),
        which gives the last group that rate and all others a tenth of it; or slice(first, last),
        spaced evenly on a logarithmic scale, as fastai's `Learner.lr_maker`.
      groups: number of groups, at least 1. With one group, slice(first, last) gives `last`.

    Raises:
      TypeError: if a rate is not a number, or `groups` is not an integer.
      ValueError: if a rate is not positive and finite, a sequence has another length, a slice has
        a step or no end, or `groups` is below 1.

    References:
      `Learner.lr_maker` and discriminative learning rates in https://docs.fast.ai/learner.html.

    Examples:
      Two blocks, of which the first learns a hundred times slower than the second:

      >>> import convjax
      >>> rates = convjax.group_rates(slice(1e-3, 1e-1), 2)
      >>> rates
      (0.001, 0.1)
      >>> scale = convjax.group_scale(rates, lambda name: int(name.split(".")[1]))
      >>> optimizer = convjax.adam(group_scale=scale)
      >>> schedules = convjax.one_cycle(100, rates[-1])  # the rate of the last group
      >>> scale({"blocks": [{"kernel": 0.0}, {"kernel": 0.0}]})
      {'blocks': [{'kernel': 0.01}, {'kernel': 1.0}]}
    """
    check_whole("groups", groups, 1)
    if isinstance(lr_max, slice):
        if lr_max.step is not None or lr_max.stop is None:
            raise ValueError(
                f"lr_max as a slice must be slice(last) or slice(first, last), got {lr_max}."
            )
        _check_rate("lr_max", lr_max.stop)
        if lr_max.start is None:
            rates = [lr_max.stop / 10] * (groups - 1) + [lr_max.stop]
        else:
            _check_rate("lr_max", lr_max.start)
            ratio = lr_max.stop / lr_max.start
            rates = [lr_max.start * ratio ** (i / max(groups - 1, 1)) for i in range(groups)]
            rates[-1] = lr_max.stop
    elif isinstance(lr_max, Sequence) and not isinstance(lr_max, str):
        rates = list(lr_max)
        if len(rates) != groups:
            raise ValueError(
                f"lr_max must have one rate per layer group ({groups}), got {len(rates)}: {rates}."
            )
    else:
        rates = [lr_max] * groups
    for rate in rates:
        _check_rate("lr_max", rate)
    return tuple(float(rate) for rate in rates)


def _check_rate(name: str, value: float) -> None:
    if not 0 < check_number(name, value) < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}.")


def _check_momentum(name: str, value: float) -> None:
    if not 0 <= check_number(name, value) < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}.")
