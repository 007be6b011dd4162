"""Statistics taken in the training step, and the record that stores them."""

from convjax.stats._scalars import scalars
from convjax.stats.activations import ActivationStats, activation_stats
from convjax.stats.bins import Bins
from convjax.stats.layers import LayerStats, layer_stats
from convjax.stats.nonfinite import NonFinite, NonFiniteError, first_non_finite
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.parameters import ParameterStats, parameter_stats
from convjax.stats.record import Record
from convjax.stats.record_file import RecordError
from convjax.stats.recorder import Recorder
from convjax.stats.watch import Watch
from convjax.stats.watched_step import watch_step

__all__ = [
    "ActivationStats",
    "Bins",
    "LayerStats",
    "NonFinite",
    "NonFiniteError",
    "ParameterRecord",
    "ParameterStats",
    "Record",
    "RecordError",
    "Recorder",
    "Watch",
    "activation_stats",
    "first_non_finite",
    "layer_stats",
    "parameter_stats",
    "scalars",
    "watch_step",
]
