"""Statistics taken in the training step, and the record that keeps them."""

from convjax.stats.activations import ActivationStats, activation_stats
from convjax.stats.nonfinite import NonFinite, NonFiniteError, first_non_finite
from convjax.stats.parameters import ParameterStats, parameter_stats
from convjax.stats.record import Record, RecordError
from convjax.stats.recorder import LayerStats, Recorder, layer_stats
from convjax.stats.watch import Watch

__all__ = [
    "ActivationStats",
    "LayerStats",
    "NonFinite",
    "NonFiniteError",
    "ParameterStats",
    "Record",
    "RecordError",
    "Recorder",
    "Watch",
    "activation_stats",
    "first_non_finite",
    "layer_stats",
    "parameter_stats",
]
