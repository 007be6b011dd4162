"""Flax NNX layers over the pure functions of `convjax.ops`, with PyTorch's initialisation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Inexact, Key, Num

from convjax._checks import check_flags
from convjax.nn._relu import relu
from convjax.ops import geometry
from convjax.ops.conv import conv2d
from convjax.ops.geometry import Padding, Pair
from convjax.ops.layout import axis_of, check_layout, kernel_to
from convjax.ops.normalization import batch_moments, batch_norm, group_norm, running_update


def uniform_fan_in(
    key: Key[Array, ""], shape: tuple[int, ...], fan_in: int, dtype: Any
) -> Float[Array, "..."]:
    """Draws numbers uniformly within ±1/√fan_in, as PyTorch does for weights and biases.

    References:
      `torch.nn.modules.conv._ConvNd.reset_parameters`, where kaiming_uniform_ with a=√5 results in
      this bound: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html.
    """
    bound = 1 / math.sqrt(fan_in)
    if jax.default_backend() != "cpu" or isinstance(key, jax.core.Tracer):
        return _uniform(key, bound, shape, dtype)
    return _uniform_on_cpu(key, bound, shape, dtype)


def _uniform(
    key: Key[Array, ""], bound: float | Float[Array, ""], shape: tuple[int, ...], dtype: Any
) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, dtype, -bound, bound)


# The same bits with few of LLVM's optimisations, which take half a second for each shape of a
# program that runs once: the chapter's network is made in 2 s instead of 5. With none of them a
# product and a sum are rounded apart.
_uniform_on_cpu = jax.jit(
    _uniform, static_argnums=(2, 3), compiler_options={"xla_backend_optimization_level": 1}
)


class Conv(nnx.Module):
    """A convolution with bias.

    Args:
      in_features: number of input channels.
      out_features: number of output channels.
      kernel_size: pixels; an int or a pair (height, width).
      stride: as for `convjax.conv2d`, like padding, dilation, groups, layout, method and precision.
      use_bias: whether a bias is added.
      dtype: of the computation; None for the widest dtype of input and parameters.
      param_dtype: of the parameters.
      rngs: source of the initial parameters. A seed gives the same weights in every layout.

    Attributes:
      kernel: axes HWIO in every layout, so that weights mean the same on every device; uniform
        within ±1/√(I·kh·kw).
      bias: shape (O,), within the same bound; None if use_bias is False.

    Raises:
      TypeError: if kernel_size is not one or two integers, or use_bias neither True nor False.
      ValueError: if groups does not divide in_features, or for a kernel_size below 1 or an unknown
        layout.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from convjax.nn import Conv
      >>> layer = Conv(3, 8, 5, stride=2, padding=2, rngs=nnx.Rngs(0))
      >>> layer.kernel.shape, layer(jnp.ones((64, 28, 28, 3))).shape
      ((5, 5, 3, 8), (64, 14, 14, 8))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Pair = 3,
        *,
        stride: int | Pair = 1,
        padding: int | Pair | Padding | str = 0,
        dilation: int | Pair = 1,
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
        check_flags(use_bias=use_bias)
        self.layout = check_layout(layout)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.method, self.precision, self.dtype = method, precision, dtype
        sizes = {"H": height, "W": width, "I": in_features // groups, "O": out_features}
        fan_in = sizes["I"] * height * width
        drawn = uniform_fan_in(
            rngs.params(), tuple(sizes[letter] for letter in "OIHW"), fan_in, param_dtype
        )
        self.kernel = nnx.Param(kernel_to(drawn, "NHWC", source="NCHW"))
        self.bias = nnx.data(
            nnx.Param(uniform_fan_in(rngs.params(), (out_features,), fan_in, param_dtype))
            if use_bias
            else None
        )

    def __call__(self, x: Num[Array | np.ndarray, "..."]) -> Inexact[Array, "..."]:
        """Maps images to maps; axes of both as `layout` says."""
        x, kernel, bias = _promote(self.dtype, x, self.kernel, self.bias)
        return conv2d(
            x,
            kernel_to(kernel, self.layout, source="NHWC"),
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
    """A fully connected layer: y = x·kernel + bias.

    Args:
      in_features: number of inputs I.
      out_features: number of outputs O.
      dtype: of the computation; None for the widest dtype of input and parameters.
      param_dtype: of the parameters.
      rngs: source of the initial parameters.

    Attributes:
      kernel: shape (I, O), uniform within ±1/√I.
      bias: shape (O,), within the same bound.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from convjax.nn import Linear
      >>> Linear(784, 30, rngs=nnx.Rngs(0))(jnp.ones((64, 784))).shape
      (64, 30)
    """

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

    def __call__(self, x: Num[Array | np.ndarray, "*batch I"]) -> Inexact[Array, "*batch O"]:
        """Maps (…, I) to (…, O)."""
        x, kernel, bias = _promote(self.dtype, x, self.kernel, self.bias)
        return x @ kernel + bias


class ReLU(nnx.Module):
    """max(x, 0); a module, so that a summary and captured outputs may show it.

    Args:
      by_output: whether the gradient asks which outputs are positive, and not which inputs. Then
        the inputs need not be kept: on a GPU, cuDNN applies the ReLU after a convolution itself.
        After a norm, asking them is cheaper: XLA computes them again from what the norm keeps.

    Raises:
      TypeError: if `by_output` is neither True nor False.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.nn import ReLU
      >>> ReLU()(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]
    """

    by_output = False  # of a derived class without this constructor

    def __init__(self, *, by_output: bool = False):
        check_flags(by_output=by_output)
        self.by_output = by_output

    def __call__(self, x: Inexact[Array, "*axes"]) -> Inexact[Array, "*axes"]:
        """Maps numbers to themselves or 0."""
        return relu(x) if self.by_output else nnx.relu(x)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the channels, for vectors and maps in any layout.

    Vectors are (N, C) in every layout. Arrays of three axes or more have their channels last for
    "NHWC", such as (N, L, C) or (N, D, H, W, C), second for "NCHW" and first for "CHWN".

    It has the attributes of `flax.nnx.BatchNorm` (scale, bias, mean, var, use_running_average), so
    that `model.train()` and `model.eval()` affect it.

    Args:
      num_features: number of channels C.
      momentum: share of the old running value that is kept. 0.9 is PyTorch's 0.1; the default of
        Flax is 0.99.
      epsilon: added to the variance.
      torch_statistics: whether the running statistics use the unbiased variance, as in PyTorch, or
        the biased one, as in Flax. The batch itself is always normalised with the biased variance.
      layout: "NHWC", "NCHW" or "CHWN".
      axis_name: a mapped axis over which the batch is split into equal parts; the moments are then
        those of the whole batch, as with `flax.nnx.BatchNorm`.
      dtype: of the result; None for that of the maps. Moments are at least float32.
      param_dtype: of scale and bias; the running statistics are at least float32.
      rngs: not used; accepted so that all layers are constructed alike.

    Raises:
      TypeError: if torch_statistics is neither True nor False.
      ValueError: for an unknown layout.

    References:
      Ioffe and Szegedy, https://arxiv.org/abs/1502.03167;
      https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.nn import BatchNorm
      >>> norm = BatchNorm(1)
      >>> norm(jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)).ravel().round(3).tolist()
      [-1.0, 1.0]
      >>> round(float(norm.mean[0]), 3), round(float(norm.var[0]), 3)  # 0.1·2 and 0.9 + 0.1·2
      (0.2, 1.1)
      >>> BatchNorm(64, layout="NCHW")(jnp.ones((8, 64))).shape  # vectors
      (8, 64)
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
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # scale starts at 1 and bias at 0
        check_flags(torch_statistics=torch_statistics)
        self.layout = check_layout(layout)
        self.axis = axis_of("C", layout)
        self.momentum, self.epsilon = momentum, epsilon
        self.torch_statistics = torch_statistics
        self.axis_name, self.dtype = axis_name, dtype
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(num_features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(num_features, param_dtype))
        # In half precision they would stop changing once an update is below 1/256 of them.
        running = jnp.promote_types(param_dtype, jnp.float32)
        self.mean = nnx.BatchStat(jnp.zeros(num_features, running))
        self.var = nnx.BatchStat(jnp.ones(num_features, running))

    def __call__(self, x: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """Normalises x; in training mode with its own moments, which update the running ones.

        Args:
          x: vectors (N, C), or maps, axes as the layout says.

        Raises:
          ValueError: for fewer than two axes, another number of channels, or, in training mode with
            PyTorch's statistics, if there is only one value per channel.
          NameError: in training mode outside the mapped axis `axis_name`.
        """
        axis = self._channels_of(x.ndim)
        if x.ndim < 2 or x.shape[axis] != self.scale.shape[0]:
            raise ValueError(
                f"x must have two axes or more with {self.scale.shape[0]} channels on axis {axis}, "
                f"as the layout {self.layout} says, got the shape {x.shape}."
            )
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = batch_moments(x, axis=axis, axis_name=self.axis_name)
            parts = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
            self.mean[...], self.var[...] = running_update(
                (self.mean[...], self.var[...]),
                (mean, var),
                momentum=self.momentum,
                count=parts * x.size // x.shape[axis],
                unbiased=self.torch_statistics,
            )
        y = batch_norm(
            x, mean, var, self.scale[...], self.bias[...], axis=axis, epsilon=self.epsilon
        )
        return y if self.dtype is None else y.astype(self.dtype)

    def _channels_of(self, ndim: int) -> int:
        """Returns the axis of the channels in an array with this number of axes."""
        if ndim == 2:
            return 1
        return self.axis if self.axis < 3 else ndim - 1


class GroupNorm(nnx.Module):
    """Normalises each example over positions and groups of channels, for maps in any layout.

    It has no running statistics and is the same in training and evaluation.

    Args:
      num_features: number of channels C.
      groups: number of groups; 1 for layer norm, num_features for instance norm.
      epsilon: added to the variance.
      layout: "NHWC", "NCHW" or "CHWN".
      dtype: of the result; None for that of the maps.
      param_dtype: of scale and bias.
      rngs: not used; accepted so that all layers are constructed alike.

    Raises:
      ValueError: if groups does not divide num_features, or for an unknown layout.

    References:
      Wu and He, https://arxiv.org/abs/1803.08494;
      https://docs.pytorch.org/docs/stable/generated/torch.nn.GroupNorm.html.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.nn import GroupNorm
      >>> x = jnp.array([1.0, 3.0, 10.0, 20.0]).reshape(1, 2, 1, 2)
      >>> GroupNorm(2, groups=1, layout="NCHW")(x).shape
      (1, 2, 1, 2)
    """

    def __init__(
        self,
        num_features: int,
        groups: int,
        *,
        epsilon: float = 1e-5,
        layout: str = "NHWC",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # scale starts at 1 and bias at 0
        if groups < 1 or num_features % groups:
            raise ValueError(
                f"groups must divide num_features, got groups={groups}, "
                f"num_features={num_features}."
            )
        self.layout = check_layout(layout)
        self.channels, self.examples = axis_of("C", layout), axis_of("N", layout)
        self.groups, self.epsilon, self.dtype = groups, epsilon, dtype
        self.scale = nnx.Param(jnp.ones(num_features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(num_features, param_dtype))

    def __call__(self, x: Float[Array | np.ndarray, "A B C D"]) -> Float[Array, "A B C D"]:
        """Normalises maps; four axes as the layout says.

        Raises:
          ValueError: for another number of axes or channels.
        """
        if x.ndim != 4 or x.shape[self.channels] != self.scale.shape[0]:
            raise ValueError(
                f"x must have four axes with {self.scale.shape[0]} channels on axis "
                f"{self.channels}, got the shape {x.shape}."
            )
        y = group_norm(
            x,
            self.scale[...],
            self.bias[...],
            groups=self.groups,
            channels=self.channels,
            examples=self.examples,
            epsilon=self.epsilon,
        )
        return y if self.dtype is None else y.astype(self.dtype)


def _promote(dtype: Any, x: Array | np.ndarray, *variables: Any) -> list[Any]:
    """Returns x and the values of the variables in `dtype`, or in the widest dtype among them."""
    values = [None if variable is None else variable[...] for variable in variables]
    present = [value for value in (x, *values) if value is not None]
    common = jnp.result_type(*present) if dtype is None else dtype
    return [None if value is None else value.astype(common) for value in (x, *values)]
