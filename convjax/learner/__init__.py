"""The chapter's words over the rest of the library: `Learner`, `conv`, `sequential`."""

from convjax.learner._learner import Learner, Prediction
from convjax.learner.blocks import Sequential, conv, default_rngs, sequential, set_seed
from convjax.learner.views import ActivationStats, Recorded

__all__ = [
    "ActivationStats",
    "Learner",
    "Prediction",
    "Recorded",
    "Sequential",
    "conv",
    "default_rngs",
    "sequential",
    "set_seed",
]
