"""Batch and group normalisation as pure functions.

References:
  Ioffe and Szegedy, "Batch Normalization", https://arxiv.org/abs/1502.03167; Wu and He,
  "Group Normalization", https://arxiv.org/abs/1803.08494.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Mean and biased variance per channel, or their running values.
Moments = tuple[Float[Array, " C"], Float[Array, " C"]]


def _channels_at(axis: int, vector: Array | np.ndarray, ndim: int) -> Any:
    """Returns a vector (C,) with `ndim` axes, of which `axis` is that of the channels."""
    shape = [1] * ndim
    shape[axis] = vector.shape[0]
    return vector.reshape(shape)


def batch_moments(
    x: Float[Array | np.ndarray, "..."], *, axis: int, axis_name: str | None = None
) -> Moments:
    """Returns mean and biased variance per channel, both of shape (C,).

    The moments are computed in one pass over x, after subtracting from each channel a value near
    its mean. Without that shift, E[x²] − E[x]² loses all digits where `|mean| ≫ std` and can turn
    negative (https://github.com/google/flax/issues/1491). With it, the relative error of the
    variance is about ε·(1 + (d/std)²), where d is the distance of the subtracted value from the
    mean. This is as small as that of two passes unless that value lies far from all others; two
    passes make the training step longer. On CPU the value is the mean over the positions with index
    0 on the last axis that is not the channels'. Elsewhere, where that mean is a launch or two more
    for each layer, it is the channel's first value. Half-precision input is summed in float32.

    Args:
      x: an array with two axes or more.
      axis: the axis of the channels; negative numbers count from the end.
      axis_name: a mapped axis (`jax.shard_map`, `jax.vmap`) over which the batch is split into
        equal parts; the moments are then those of all parts together.

    References:
      Chan, Golub and LeVeque, "Algorithms for computing the sample variance",
      https://doi.org/10.1080/00031305.1983.10483115.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import batch_moments
      >>> mean, var = batch_moments(jnp.array([[1.0, 0.0], [3.0, 4.0]]), axis=1)
      >>> mean.tolist(), var.tolist()
      ([2.0, 2.0], [1.0, 4.0])
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axis %= x.ndim
    others = tuple(i for i in range(x.ndim) if i != axis)
    # The gradient may treat the shift as a constant, because neither moment depends on it.
    part = jax.lax.stop_gradient(jax.lax.slice_in_dim(x, 0, 1, axis=others[-1]))
    forms = {"default": lambda part: jnp.mean(part, others)}
    # An axis of explicit sharding has no first value that all devices know.
    if part.size and not any(jax.typeof(part).sharding.spec):
        first = tuple(slice(None) if i == axis else 0 for i in range(x.ndim))
        forms = {"cpu": forms["default"], "default": lambda part: part[first]}
    shift = jax.lax.platform_dependent(part, **forms)
    shifted = x - _channels_at(axis, shift, x.ndim)
    mean = jnp.mean(shifted, others)
    var = jnp.mean(jnp.square(shifted), others) - jnp.square(mean)
    moments = shift + mean, jnp.maximum(var, 0)
    return moments if axis_name is None else _over_parts(moments, axis_name)


def _over_parts(moments: Moments, axis_name: str) -> Moments:
    """Returns the moments of all parts, which are of equal size, from those of each part.

    The variance is the mean of the variances plus the variance of the means.
    """
    # One gather instead of two sums: communication costs more than the computation here.
    means, variances = jnp.moveaxis(jax.lax.all_gather(jnp.stack(moments), axis_name), 1, 0)
    mean = jnp.mean(means, 0)
    return mean, jnp.mean(variances, 0) + jnp.mean(jnp.square(means - mean), 0)


def running_update(
    running: Moments, batch: Moments, *, momentum: float, count: int, unbiased: bool
) -> Moments:
    """Returns momentum·running + (1 − momentum)·batch, for mean and variance.

    Args:
      running: (mean, variance), each of shape (C,).
      batch: (mean, variance), each of shape (C,); the variance is the biased one.
      momentum: share of the old value that is kept.
      count: number n of values per channel in the batch.
      unbiased: whether to multiply the batch's variance by n/(n − 1) first, as PyTorch does for
        the running statistics only.

    Raises:
      ValueError: if `unbiased` and `count` is 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import running_update
      >>> running, batch = (jnp.zeros(1), jnp.ones(1)), (jnp.full(1, 2.0), jnp.ones(1))
      >>> new = running_update(running, batch, momentum=0.9, count=2, unbiased=True)
      >>> [round(float(value[0]), 4) for value in new]  # 0.1·2 and 0.9·1 + 0.1·1·2/1
      [0.2, 1.1]
    """
    if unbiased and count < 2:
        raise ValueError(
            "batch norm in training mode needs more than one value per channel, got one. "
            "Use a larger batch, or model.eval()."
        )
    mean, var = batch
    if unbiased:
        var = var * (count / (count - 1))
    keep = jax.lax.stop_gradient
    return (
        momentum * running[0] + (1 - momentum) * keep(mean).astype(running[0].dtype),
        momentum * running[1] + (1 - momentum) * keep(var).astype(running[1].dtype),
    )


def batch_norm(
    x: Float[Array | np.ndarray, "..."],
    mean: Float[Array | np.ndarray, " C"],
    var: Float[Array | np.ndarray, " C"],
    scale: Float[Array | np.ndarray, " C"],
    bias: Float[Array | np.ndarray, " C"],
    *,
    axis: int,
    epsilon: float,
) -> Float[Array, "..."]:
    """Returns (x − mean)/√(var + ε)·γ + β, in the dtype of x.

    Computed as x·a + b with a = γ/√(var + ε) and b = β − mean·a, as PyTorch does on CPU: one
    operation less per value. The rounding error grows with `|mean|/std`, times γ. Half precision
    is therefore computed in float32.

    Args:
      x: an array of any number of axes.
      mean: per channel, shape (C,).
      var: biased variance per channel, shape (C,).
      scale: γ, shape (C,).
      bias: β, shape (C,).
      axis: the axis of the channels in x.
      epsilon: ε, added to the variance.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import batch_moments, batch_norm
      >>> x = jnp.array([[1.0, 0.0], [3.0, 4.0]])
      >>> moments = batch_moments(x, axis=1)
      >>> y = batch_norm(x, *moments, jnp.ones(2), jnp.zeros(2), axis=1, epsilon=0.0)
      >>> y.round(4).tolist()
      [[-1.0, -1.0], [1.0, 1.0]]
    """
    wide: Any = jnp.promote_types(x.dtype, jnp.float32)
    mean, var, scale, bias = (v.astype(wide) for v in (mean, var, scale, bias))
    factor = scale * jax.lax.rsqrt(var + epsilon)
    factor, offset = (_channels_at(axis, v, x.ndim) for v in (factor, bias - mean * factor))
    return (x.astype(wide) * factor + offset).astype(x.dtype)


def group_norm(
    x: Float[Array | np.ndarray, "..."],
    scale: Float[Array | np.ndarray, " C"],
    bias: Float[Array | np.ndarray, " C"],
    *,
    groups: int,
    channels: int,
    examples: int,
    epsilon: float,
) -> Float[Array, "..."]:
    """Normalises every example by itself, over its positions and the channels of one group.

    With one group it is layer norm over channels and positions, as `torch.nn.GroupNorm(1, C)`;
    with as many groups as channels it is instance norm.

    Args:
      x: maps, with any number of positional axes.
      scale: γ, shape (C,).
      bias: β, shape (C,).
      groups: number of groups; divides C.
      channels: the axis of the channels in x.
      examples: the axis of the examples in x.
      epsilon: ε, added to the variance.

    Returns:
      (x − mean)/√(var + ε)·γ + β in the dtype of x; half precision is computed in float32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import group_norm
      >>> x = jnp.array([[[1.0, 3.0], [10.0, 20.0]]])  # one example, two channels
      >>> axes = {"channels": 1, "examples": 0}
      >>> group_norm(x, jnp.ones(2), jnp.zeros(2), groups=2, **axes, epsilon=0.0).round(4).tolist()
      [[[-1.0, 1.0], [-1.0, 1.0]]]
    """
    wide: Any = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    positions = tuple(i for i in range(x.ndim) if i not in (channels, examples))

    def mean_of_group(values: Array) -> Array:
        """Returns the mean over positions and the channels of each group, broadcastable to x."""
        per_channel = jnp.mean(values, positions, keepdims=True)
        shape = per_channel.shape
        split = (*shape[:channels], groups, -1, *shape[channels + 1 :])
        grouped = per_channel.reshape(split)
        averaged = jnp.mean(grouped, channels + 1, keepdims=True)
        return jnp.broadcast_to(averaged, grouped.shape).reshape(shape)

    # Two passes: E[x²] − E[x]² would cancel where |mean| ≫ std.
    centred = wide - mean_of_group(wide)
    normal = centred * jax.lax.rsqrt(mean_of_group(jnp.square(centred)) + epsilon)
    factor, offset = (_channels_at(channels, v, x.ndim) for v in (scale, bias))
    return (normal * factor + offset).astype(x.dtype)
