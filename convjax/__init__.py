"""convjax: see why convolutional networks train or fail to train, in JAX and Flax."""

from convjax import data, distributed, drawings, plots, reference, runs, weights
from convjax.capture import capture, channel_axes
from convjax.checkpoints import Checkpoints
from convjax.conv import conv2d
from convjax.diagnose import diagnose
from convjax.effective import effective_field
from convjax.finder import lr_find
from convjax.fit import fit
from convjax.keeping import Keeping
from convjax.models import ConvNet, LinearNet, broken_net, digits_net, threes_sevens_net
from convjax.optim import adam, group_scale, sgd
from convjax.parameter_stats import parameter_stats
from convjax.plan import Plan
from convjax.precedents import Windows, precedents, trace_precedents
from convjax.receptive import receptive_fields
from convjax.record import Record
from convjax.recorder import Recorder, layer_stats
from convjax.resident import Images
from convjax.schedules import constant, exponential, group_rates, one_cycle
from convjax.stats import activation_stats
from convjax.summary import summary
from convjax.sweep import sweep
from convjax.train import Trainer
from convjax.watch import Watch

__all__ = [
    "Checkpoints",
    "ConvNet",
    "Images",
    "Keeping",
    "LinearNet",
    "Plan",
    "Record",
    "Recorder",
    "Trainer",
    "Watch",
    "Windows",
    "activation_stats",
    "adam",
    "broken_net",
    "capture",
    "channel_axes",
    "constant",
    "conv2d",
    "data",
    "diagnose",
    "digits_net",
    "distributed",
    "drawings",
    "effective_field",
    "exponential",
    "fit",
    "group_rates",
    "group_scale",
    "layer_stats",
    "lr_find",
    "one_cycle",
    "parameter_stats",
    "plots",
    "precedents",
    "receptive_fields",
    "reference",
    "runs",
    "sgd",
    "summary",
    "sweep",
    "threes_sevens_net",
    "trace_precedents",
    "weights",
]
