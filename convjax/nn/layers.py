"""Flax NNX layers, thin over the pure functions, with PyTorch's initialisation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convjax.ops import geometry
from convjax.ops.conv import conv2d
from convjax.ops.layout import axis_of, check_layout, kernel_to
from convjax.ops.normalization import batch_moments, batch_norm, group_norm, running_update


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], fan_in: int, dtype: Any) -> jax.Array:
    """Draws numbers uniformly within ±1/√fan_in, as PyTorch does for weights and biases.

    Source: `torch.nn.modules.conv._ConvNd.reset_parameters`, whose kaiming_uniform_ with a=√5
    comes to this bound: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html
    """
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Conv(nnx.Module):
    """A convolution with bias; see `convjax.conv2d` for what the settings mean.

    Attributes:
      kernel: axes HWIO, OIHW or IHWO as `layout` says, uniform within ±1/√(I·kh·kw).
      bias: shape (O,), within the same bound; None where use_bias is False.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | geometry.Pair = 3,
        *,
        stride: int | geometry.Pair = 1,
        padding: Any = 0,
        dilation: int | geometry.Pair = 1,
        groups: int = 1,
        use_bias: bool = True,
        layout: str = "NHWC",
        method: str = "auto",
        precision: Any = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width = geometry.pair("kernel_size", kernel_size, minimum=1)
        if in_features % groups:
            raise ValueError(
                f"groups must divide in_features, got groups={groups}, in_features={in_features}."
            )
        self.layout = check_layout(layout)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.method, self.precision, self.dtype = method, precision, dtype
        sizes = {"H": height, "W": width, "I": in_features // groups, "O": out_features}
        fan_in = sizes["I"] * height * width
        # Drawn in one order and then arranged: a seed means the same network in every layout.
        drawn = uniform_fan_in(
            rngs.params(), tuple(sizes[letter] for letter in "OIHW"), fan_in, param_dtype
        )
        self.kernel = nnx.Param(kernel_to(drawn, self.layout, source="NCHW"))
        self.bias = nnx.data(
            nnx.Param(uniform_fan_in(rngs.params(), (out_features,), fan_in, param_dtype))
            if use_bias
            else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to maps, both with axes as `layout` says."""
        x, kernel, bias = _promote(self.dtype, x, self.kernel, self.bias)
        return conv2d(
            x,
            kernel,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            layout=self.layout,
            method=self.method,
            precision=self.precision,
        )


class Linear(nnx.Module):
    """y = x·kernel + bias, with kernel (I, O) and bias (O,) uniform within ±1/√I."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        shape = (in_features, out_features)
        self.kernel = nnx.Param(uniform_fan_in(rngs.params(), shape, in_features, param_dtype))
        self.bias = nnx.Param(
            uniform_fan_in(rngs.params(), (out_features,), in_features, param_dtype)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (…, I) to (…, O)."""
        x, kernel, bias = _promote(self.dtype, x, self.kernel, self.bias)
        return x @ kernel + bias


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the channels, for maps in any layout.

    It has the attributes of `flax.nnx.BatchNorm` (scale, bias, mean, var, use_running_average), so
    that `model.train()` and `model.eval()` reach it. `momentum` is the share of the old running
    value that is kept: 0.9 here is PyTorch's 0.1, and Flax's default is 0.99.

    Args:
      num_features: number of channels C.
      layout: where the channels of the maps are.
      torch_statistics: keep the unbiased variance in the running statistics, as PyTorch does;
        False keeps the biased one, as Flax does. The batch itself is always normalised with the
        biased variance.
      axis_name: of a mapped axis over which the batch is split into equal parts; the moments are
        then those of the whole batch, as with `flax.nnx.BatchNorm`.

    Reference: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167;
    https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        torch_statistics: bool = True,
        layout: str = "NHWC",
        axis_name: str | None = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # scale starts at 1 and bias at 0; taken so that layers are built alike
        self.layout = check_layout(layout)
        self.axis = axis_of("C", layout)
        self.momentum, self.epsilon = momentum, epsilon
        self.torch_statistics = torch_statistics
        self.axis_name = axis_name
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(num_features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(num_features, param_dtype))
        # In half precision they would stop moving once a step changes them by less than 1/256.
        running = jnp.promote_types(param_dtype, jnp.float32)
        self.mean = nnx.BatchStat(jnp.zeros(num_features, running))
        self.var = nnx.BatchStat(jnp.ones(num_features, running))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x; in training mode with its own moments, which update the running ones.

        Args:
          x: four axes as the layout says.

        Raises:
          ValueError: for another number of axes or of channels, or, in training mode with PyTorch's
            statistics, if there is only one value per channel.
          NameError: in training mode outside the mapped axis that `axis_name` names.
        """
        if x.ndim != 4 or x.shape[self.axis] != self.scale.shape[0]:
            raise ValueError(
                f"x must have four axes with {self.scale.shape[0]} channels on axis {self.axis}, "
                f"got the shape {x.shape}."
            )
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = batch_moments(x, axis=self.axis, axis_name=self.axis_name)
            parts = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
            self.mean[...], self.var[...] = running_update(
                (self.mean[...], self.var[...]),
                (mean, var),
                momentum=self.momentum,
                count=parts * x.size // x.shape[self.axis],
                unbiased=self.torch_statistics,
            )
        return batch_norm(
            x, mean, var, self.scale[...], self.bias[...], axis=self.axis, epsilon=self.epsilon
        )


class GroupNorm(nnx.Module):
    """Normalises each example over positions and groups of channels, for maps in any layout.

    It has no running statistics and does the same in training and evaluation.

    Args:
      num_features: number of channels C.
      groups: 1 for layer norm, num_features for instance norm.
      layout: where the channels of the maps are.

    Raises:
      ValueError: if groups does not divide num_features.

    Reference: Wu and He, https://arxiv.org/abs/1803.08494;
    https://docs.pytorch.org/docs/stable/generated/torch.nn.GroupNorm.html
    """

    def __init__(
        self,
        num_features: int,
        groups: int,
        *,
        epsilon: float = 1e-5,
        layout: str = "NHWC",
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # scale starts at 1 and bias at 0; taken so that layers are built alike
        if groups < 1 or num_features % groups:
            raise ValueError(
                f"groups must divide num_features, got groups={groups}, "
                f"num_features={num_features}."
            )
        self.layout = check_layout(layout)
        self.channels, self.examples = axis_of("C", layout), axis_of("N", layout)
        self.groups, self.epsilon = groups, epsilon
        self.scale = nnx.Param(jnp.ones(num_features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(num_features, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x, four axes as the layout says.

        Raises:
          ValueError: for another number of axes or of channels.
        """
        if x.ndim != 4 or x.shape[self.channels] != self.scale.shape[0]:
            raise ValueError(
                f"x must have four axes with {self.scale.shape[0]} channels on axis "
                f"{self.channels}, got the shape {x.shape}."
            )
        return group_norm(
            x,
            self.scale[...],
            self.bias[...],
            groups=self.groups,
            channels=self.channels,
            examples=self.examples,
            epsilon=self.epsilon,
        )


def _promote(dtype: Any, x: jax.Array, *variables: Any) -> list[Any]:
    """Returns x and the values of the variables in one dtype: `dtype`, or the widest of them."""
    values = [None if variable is None else variable[...] for variable in variables]
    present = [value for value in (x, *values) if value is not None]
    common = jnp.result_type(*present) if dtype is None else dtype
    return [None if value is None else value.astype(common) for value in (x, *values)]
