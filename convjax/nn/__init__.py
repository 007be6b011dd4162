"""Flax NNX layers and networks, the outputs of their layers, and their weights in files."""

from convjax.nn import weights
from convjax.nn._capture import capture, channel_axes, layer_names
from convjax.nn.layers import BatchNorm, Conv, GroupNorm, Linear
from convjax.nn.linen_model import LinenModel
from convjax.nn.models import ConvNet, LinearNet, broken_net, digits_net, threes_sevens_net

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvNet",
    "GroupNorm",
    "Linear",
    "LinearNet",
    "LinenModel",
    "broken_net",
    "capture",
    "channel_axes",
    "digits_net",
    "layer_names",
    "threes_sevens_net",
    "weights",
]
