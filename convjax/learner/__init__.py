"""The chapter's words over the rest of the library: `Learner`, `conv`, `sequential`."""

from convjax.learner._learner import Learner, Prediction
from convjax.learner.blocks import Sequential, conv, default_rngs, sequential, set_seed
from convjax.learner.views import Recorded, RecordedActivations

__all__ = [
    "Learner",
    "Prediction",
    "Recorded",
    "RecordedActivations",
    "Sequential",
    "conv",
    "default_rngs",
    "sequential",
    "set_seed",
]
