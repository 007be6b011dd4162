"""Flax NNX layers and networks, the outputs of their layers, and their weights in files."""

from convjax.nn import weights
from convjax.nn._capture import capture, channel_axes, layer_names
from convjax.nn.layers import BatchNorm, Conv, GroupNorm, Linear, ReLU
from convjax.nn.linen_model import LinenModel
from convjax.nn.models import ConvNet, LinearNet, broken_net, digits_net, threes_sevens_net
from convjax.nn.pooling import AvgPool, Flatten, GlobalAvgPool, MaxPool
from convjax.nn.residual import ResNet, cifar_resnet, resnet18, resnet34, resnet50
from convjax.nn.residual_blocks import BasicBlock, Bottleneck

__all__ = [
    "AvgPool",
    "BasicBlock",
    "BatchNorm",
    "Bottleneck",
    "Conv",
    "ConvNet",
    "Flatten",
    "GlobalAvgPool",
    "GroupNorm",
    "Linear",
    "LinearNet",
    "LinenModel",
    "MaxPool",
    "ReLU",
    "ResNet",
    "broken_net",
    "capture",
    "channel_axes",
    "cifar_resnet",
    "digits_net",
    "layer_names",
    "resnet18",
    "resnet34",
    "resnet50",
    "threes_sevens_net",
    "weights",
]
