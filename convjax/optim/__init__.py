"""Optimisers, and schedules of their learning rate and momentum."""

from convjax.optim.optimizers import Optimizer, adam, from_optax, group_scale, sgd
from convjax.optim.schedules import Schedules, constant, exponential, group_rates, one_cycle

__all__ = [
    "Optimizer",
    "Schedules",
    "adam",
    "constant",
    "exponential",
    "from_optax",
    "group_rates",
    "group_scale",
    "one_cycle",
    "sgd",
]
