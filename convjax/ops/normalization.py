"""Normalisation as pure functions: moments over a batch or over groups of channels, the formula.

References: Ioffe and Szegedy, "Batch Normalization", https://arxiv.org/abs/1502.03167; Wu and He,
"Group Normalization", https://arxiv.org/abs/1803.08494.
"""

import jax
import jax.numpy as jnp

Moments = tuple[jax.Array, jax.Array]


def _channels_at(axis: int, vector: jax.Array, ndim: int) -> jax.Array:
    shape = [1] * ndim
    shape[axis] = vector.shape[0]
    return vector.reshape(shape)


def batch_moments(x: jax.Array, *, axis: int, axis_name: str | None = None) -> Moments:
    """Returns mean and biased variance per channel, both of shape (C,).

    One pass over x, from which a value near its channel's mean is subtracted first, the mean of
    what has index 0 on the last axis that is not the channels': without that E[x²] − E[x]² loses
    all digits where |mean| ≫ std and can turn negative
    (https://github.com/google/flax/issues/1491). The relative error of the variance is about
    ε·(1 + (d/std)²), d being the distance of that value from the mean, hence that of two passes
    unless the part is far from all the rest; two passes make the training step longer.
    Half-precision input is summed in float32.

    Args:
      x: any array of two axes or more, whose channels lie on `axis`.
      axis: of the channels; negative numbers count from the end.
      axis_name: of a mapped axis (`jax.shard_map`, `jax.vmap`) over which the batch is split into
        equal parts; the moments are then those of all parts together.

    Reference: Chan, Golub and LeVeque, "Algorithms for computing the sample variance",
    https://doi.org/10.1080/00031305.1983.10483115.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axis %= x.ndim
    others = tuple(i for i in range(x.ndim) if i != axis)
    # A constant to the gradient: neither moment depends on it.
    part = jax.lax.slice_in_dim(x, 0, 1, axis=others[-1])
    shift = jax.lax.stop_gradient(jnp.mean(part, others))
    shifted = x - _channels_at(axis, shift, x.ndim)
    mean = jnp.mean(shifted, others)
    var = jnp.mean(jnp.square(shifted), others) - jnp.square(mean)
    moments = shift + mean, jnp.maximum(var, 0)
    return moments if axis_name is None else _over_parts(moments, axis_name)


def _over_parts(moments: Moments, axis_name: str) -> Moments:
    """Combines the moments of equal parts: those of the means add to the mean variance."""
    # Gathered, not summed twice: the exchange costs more than all that is computed here.
    means, variances = jnp.moveaxis(jax.lax.all_gather(jnp.stack(moments), axis_name), 1, 0)
    mean = jnp.mean(means, 0)
    return mean, jnp.mean(variances, 0) + jnp.mean(jnp.square(means - mean), 0)


def running_update(
    running: Moments, batch: Moments, *, momentum: float, count: int, unbiased: bool
) -> Moments:
    """Returns momentum·running + (1 − momentum)·batch, for mean and variance.

    Args:
      running, batch: (mean, variance), each of shape (C,); the batch's variance is the biased one.
      momentum: share of the old value that is kept.
      count: number of values per channel in the batch.
      unbiased: turn the batch's variance into the unbiased one first (times n/(n − 1)), as
        PyTorch does for the running statistics only.

    Raises:
      ValueError: if unbiased is asked of a single value.
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
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    axis: int,
    epsilon: float,
) -> jax.Array:
    """Returns (x − mean)/√(var + ε)·γ + β, in the dtype of x.

    Computed as x·a + b with a = γ/√(var + ε) and b = β − mean·a, as PyTorch does on CPU: one
    operation less for each value. Its rounding error is that of |mean|/std, times γ; half precision
    is computed in float32, where it would show.

    Args:
      x: any array whose channels lie on `axis`.
      mean, var, scale (γ), bias (β): shape (C,).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    mean, var, scale, bias = (v.astype(wide) for v in (mean, var, scale, bias))
    factor = scale * jax.lax.rsqrt(var + epsilon)
    factor, offset = (_channels_at(axis, v, x.ndim) for v in (factor, bias - mean * factor))
    return (x.astype(wide) * factor + offset).astype(x.dtype)


def group_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    groups: int,
    channels: int,
    examples: int,
    epsilon: float,
) -> jax.Array:
    """Normalises every example by itself, over its positions and the channels of one group.

    With one group it is layer norm over channels and positions, as `torch.nn.GroupNorm(1, C)`;
    with as many groups as channels it is instance norm.

    Args:
      x: maps; `channels` and `examples` are the positions of those two axes.
      scale, bias: shape (C,).
      groups: divides C.

    Returns:
      (x − mean)/√(var + ε)·γ + β in the dtype of x; half precision is computed in float32.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    positions = tuple(i for i in range(x.ndim) if i not in (channels, examples))

    def mean_of_group(values: jax.Array) -> jax.Array:
        """Averages over positions, then over the channels of each group; broadcasts against x."""
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
