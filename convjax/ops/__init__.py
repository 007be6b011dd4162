"""Pure functions: the convolution in every layout, its arithmetic, and normalisation."""

from convjax.ops import reference
from convjax.ops.conv import Method, conv2d, patches
from convjax.ops.geometry import multiplications, output_shape, output_size, same_padding
from convjax.ops.layout import Layout, flatten, images_to, kernel_to, resolve_layout
from convjax.ops.normalization import batch_moments, batch_norm, group_norm, running_update
from convjax.ops.pooling import avg_pool, max_pool

__all__ = [
    "Layout",
    "Method",
    "avg_pool",
    "batch_moments",
    "batch_norm",
    "conv2d",
    "flatten",
    "group_norm",
    "images_to",
    "kernel_to",
    "max_pool",
    "multiplications",
    "output_shape",
    "output_size",
    "patches",
    "reference",
    "resolve_layout",
    "running_update",
    "same_padding",
]
