"""One-cycle and simpler forms as Optax schedules for rate and momentum; rates of layer groups.

References: Smith, "A disciplined approach to neural network hyper-parameters: part 1",
https://arxiv.org/abs/1803.09820, and Smith and Topin, "Super-convergence",
https://arxiv.org/abs/1708.07120, for the linear form; fastai's `fit_one_cycle`
(https://docs.fast.ai/callback.schedule.html) for the cosine form and all defaults.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from convjax._checks import check_number, check_whole

Anneal = Literal["cos", "linear"]


class Schedules(NamedTuple):
    """What an optimiser is to do at each step: two Optax schedules, step → value.

    "Momentum" is b1 for Adam and the momentum of SGD.
    """

    learning_rate: optax.Schedule
    momentum: optax.Schedule

    def table(self, steps: int) -> dict[str, jax.Array]:
        """Returns both at steps 0 … steps − 1: {"learning_rate": (T,), "momentum": (T,)}."""
        at = jnp.arange(check_whole("steps", steps, 0))
        return {
            name: jnp.broadcast_to(jnp.asarray(schedule(at), float), at.shape)
            for name, schedule in self._asdict().items()
        }


def constant(learning_rate: float, momentum: float = 0.9) -> Schedules:
    """Returns one rate and one momentum for all steps (fastai's `fit`, whose momentum is 0.9)."""
    _check_rate("learning_rate", learning_rate)
    _check_momentum("momentum", momentum)
    return Schedules(optax.constant_schedule(learning_rate), optax.constant_schedule(momentum))


def exponential(steps: int, start: float, end: float, momentum: float = 0.9) -> Schedules:
    """Returns a rate that grows by the same factor at every step, from `start` towards `end`.

    At step t it is start·(end/start)^(t/steps), as in fastai's `SchedExp`: the end is approached
    and not met.

    Args:
      steps: number of training steps T, at least 1.
      momentum: at all steps.

    Raises:
      TypeError: for what is no number, or steps that are no whole one.
      ValueError: for a number outside its range.
    """
    check_whole("steps", steps, 1)
    _check_rate("start", start)
    _check_rate("end", end)
    _check_momentum("momentum", momentum)

    def learning_rate(step: jax.typing.ArrayLike) -> jax.Array:
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
    """Returns the one-cycle policy: the rate rises then falls, the momentum the other way round.

    At step t the position is t/steps. The rate goes from lr_max/div to lr_max until the position
    is pct_start, then to lr_max/div_final; the momentum through its three values. The last step
    is at (steps − 1)/steps, so that, as in fastai, the final value is approached and not met;
    from t = steps on it holds.

    Args:
      steps: number of training steps T, at least 1.
      lr_max: highest learning rate.
      div: lr_max over the rate at the start.
      div_final: lr_max over the rate at the end.
      pct_start: share of the steps in which the rate rises, from 0 to 1; with 0 it only falls,
        with 1 it only rises.
      momentum: at the start, at the highest rate, at the end.
      anneal: "cos" as in fastai, or "linear" as in the papers.

    Raises:
      TypeError: for what is no number, or steps that are no whole one.
      ValueError: for a number outside its range or an unknown form.
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
    # fastai rounds the turning point to float32, as it does the position.
    turn = float(np.float32(pct_start))
    rest = float(np.float32(1 - turn))

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        # Optax's own one-cycle schedules round the turning point to a whole step and lose a phase
        # where there are few of them; here the position is a real number, as in fastai. fastai
        # rounds it to float32 even in float64 programs, which shows at the lowest rates: so do we.
        position = _single(jnp.clip(jnp.asarray(step, float) / steps, 0.0, 1.0))
        # max keeps the phase that does not exist (pct_start 0 or 1) free of 0/0.
        rising = _single(position / max(turn, 1e-12))
        falling = _single(_single(position - turn) / max(rest, 1e-12))
        return jnp.where(
            position < turn,
            _between(start, middle, rising, anneal),
            _between(middle, end, jnp.clip(falling, 0.0, 1.0), anneal),
        )

    return schedule


def _single(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)


def _between(start: float, end: float, share: jax.Array, anneal: str) -> jax.Array:
    if anneal == "cos":
        share = (1 + jnp.cos(jnp.pi * (1 - share))) / 2
    # This form meets both ends exactly in float32; start + share·(end − start) would miss the last
    # rate, which is millions of times smaller than the difference, by parts in a thousand.
    return start * (1 - share) + end * share


def group_rates(lr_max: float | Sequence[float] | slice, groups: int) -> tuple[float, ...]:
    """Returns one highest rate per layer group, the last being that of the head.

    Args:
      lr_max: a number (the same for all groups); a sequence with one per group; slice(last), which
        gives the last group that rate and all others a tenth of it; or slice(first, last), spaced
        evenly on a logarithmic scale, as fastai's `Learner.lr_maker`.
      groups: number of groups, at least 1.

    Raises:
      ValueError: for a rate that is not positive, a sequence of another length, a slice with a
        step or without an end, or no groups.
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
