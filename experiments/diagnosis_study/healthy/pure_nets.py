"""Networks of the zoo whose parameters are apart: of Flax Linen and of plain JAX."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from experiments.diagnosis_study.healthy.convolutional_nets import PIXELS
from experiments.diagnosis_study.healthy.layer_maker import LayerMaker

PureVariables = dict[str, Any]


class _LinenLayers(linen.Module):
    """Convolutions of stride 2 and a linear layer, as usual in Flax Linen."""

    outputs: int
    norm: bool
    momentum: float

    @linen.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = images
        for features in (8, 16, 32):
            x = linen.Conv(features, (3, 3), strides=2)(x)
            if self.norm:
                x = linen.BatchNorm(use_running_average=not train, momentum=self.momentum)(x)
            x = linen.relu(x)
        return linen.Dense(self.outputs, name="head")(x.reshape(len(x), -1))


class LinenCNN:
    """A CNN of Flax Linen.

    Args:
      outputs: number of outputs, K.
      make: its style has the momentum, and it has the seed.
      norm: whether it has batch norm.
    """

    def __init__(self, outputs: int, make: LayerMaker, *, norm: bool = False):
        self._layers = _LinenLayers(outputs, norm, make.style.momentum)
        self._key = jax.random.key(make.seed, impl="rbg")  # compiles faster than the default

    def init(self) -> PureVariables:
        """Returns the initial variables."""
        images = jnp.ones((1, 28, 28, 1))
        return dict(jax.jit(lambda key: self._layers.init(key, images, True))(self._key))

    def apply(self, variables: PureVariables, images: jax.Array) -> tuple[jax.Array, PureVariables]:
        """Returns the outputs (N, K) of a step, and the new running statistics."""
        outputs, new = self._layers.apply(variables, images, True, mutable=["batch_stats"])
        return outputs, dict(new)

    def predict(self, variables: PureVariables, images: jax.Array) -> jax.Array:
        """Returns the outputs (N, K) in evaluation."""
        outputs: Any = self._layers.apply(variables, images, False)
        return outputs


class LinenNormCNN(LinenCNN):
    """A CNN of Flax Linen with batch norm."""

    def __init__(self, outputs: int, make: LayerMaker):
        super().__init__(outputs, make, norm=True)


class DenseLayers:
    """Fully connected layers, written in JAX alone.

    Args:
      outputs: number of outputs, K.
      make: it has the seed.
    """

    def __init__(self, outputs: int, make: LayerMaker):
        self._widths, self._seed = (PIXELS, 64, 64, outputs), make.seed

    def init(self) -> PureVariables:
        """Returns the initial variables."""
        rng, params = np.random.default_rng(self._seed), {}
        for name, (i, o) in zip(
            ("hidden0", "hidden1", "head"), pairwise(self._widths), strict=True
        ):
            kernel = rng.standard_normal((i, o)) * (2 / i) ** 0.5
            params[name] = {"w": jnp.asarray(kernel, jnp.float32), "b": jnp.zeros(o)}
        return {"params": params}

    def apply(self, variables: PureVariables, images: jax.Array) -> tuple[jax.Array, PureVariables]:
        """Returns the outputs (N, K); there are no running statistics."""
        return self.predict(variables, images), {}

    def predict(self, variables: PureVariables, images: jax.Array) -> jax.Array:
        """Returns the outputs (N, K)."""
        x = images.reshape(len(images), -1)
        params = variables["params"]
        for name in ("hidden0", "hidden1"):
            x = jax.nn.relu(x @ params[name]["w"] + params[name]["b"])
        return x @ params["head"]["w"] + params["head"]["b"]
