"""Ghost batch norm: the statistics of parts of a batch, noisier than those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from convjax._checks import check_whole
from convjax.nn.layers import BatchNorm
from convjax.nn.models import ConvBlock
from convjax.ops.layout import axis_of
from convjax.ops.normalization import batch_moments, batch_norm, running_update


class GhostBatchNorm(BatchNorm):
    """Batch norm that, in training, normalises each group of images with its own statistics.

    The running statistics are those of the whole batch, so that evaluation is as with batch norm.

    Args:
      num_features: number of channels C.
      group: number of images in a group.
      layout: of the maps.

    References:
      Hoffer, Hubara and Soudry, "Train longer, generalize better", https://arxiv.org/abs/1705.08741,
      section 4.
    """

    def __init__(self, num_features: int, group: int, *, layout: str):
        super().__init__(num_features, layout=layout)
        self.group = check_whole("group", group, 1)
        self.images = axis_of("N", layout)

    def __call__(self, x: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """Normalises maps; in training mode with the moments of groups of neighbours in the batch.

        Raises:
          ValueError: in training mode, if the batch is not a whole number of groups.
        """
        if self.use_running_average:
            return super().__call__(x)
        number = x.shape[self.images]
        if number % self.group:
            raise ValueError(
                f"x must be a whole number of groups of {self.group} images in training mode, got "
                f"{number} images. Use a batch size that {self.group} divides."
            )
        split = (*x.shape[: self.images], -1, self.group, *x.shape[self.images + 1 :])
        groups = jnp.moveaxis(jnp.reshape(x, split), self.images, 0)
        means, variances = jax.vmap(lambda part: batch_moments(part, axis=self.axis))(groups)
        mean = jnp.mean(means, 0)
        var = jnp.mean(variances, 0) + jnp.var(means, 0)
        self.mean[...], self.var[...] = running_update(
            (self.mean[...], self.var[...]),
            (mean, var),
            momentum=self.momentum,
            count=x.size // x.shape[self.axis],
            unbiased=self.torch_statistics,
        )

        def normalised(part: Array, mean: Array, var: Array) -> Array:
            scale, bias = self.scale[...], self.bias[...]
            return batch_norm(part, mean, var, scale, bias, axis=self.axis, epsilon=self.epsilon)

        y = jax.vmap(normalised)(groups, means, variances)
        return jnp.reshape(jnp.moveaxis(y, 0, self.images), x.shape)


def use_ghost_batch_norm(model: nnx.Module, group: int) -> None:
    """Replaces each batch norm of a model by ghost batch norm with the same parameters."""
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ConvBlock) and isinstance(module.norm, BatchNorm):
            norm = module.norm
            module.norm = GhostBatchNorm(norm.scale.shape[0], group, layout=norm.layout)
            for name in ("scale", "bias", "mean", "var"):
                setattr(module.norm, name, getattr(norm, name))
