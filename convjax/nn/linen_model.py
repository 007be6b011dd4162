"""A Linen module as an NNX module, for what takes NNX modules alone."""

import inspect
from typing import Any

import jax
from flax import linen, nnx

from convjax._checks import check_type

# What Linen modules call the argument that tells training from evaluation, and its value in
# training.
MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


class LinenModel(nnx.Module):
    """A Linen module with its variables, which trains and evaluates as an NNX module does.

    `train()` and `eval()` set the mode, which the call passes to the module by the argument that it
    has for it: train, training, is_training, deterministic or use_running_average. Batch
    statistics are updated in training, and dropout gets a new key at each call.

    Args:
      module: the Linen module, whose call takes the images first.
      images: an array or `jax.ShapeDtypeStruct` such as it will get, by which its variables are
        initialised. Images of a `convjax.Trainer` arrive normalised, as float32.
      rngs: source of the initial variables, and of the keys for dropout.
      **kwargs: further arguments of every call.

    Attributes:
      deterministic: whether the module evaluates.

    Raises:
      TypeError: if the module is not of Linen.

    References:
      https://flax.readthedocs.io/en/latest/guides/bridge_guide.html, on which it is built.

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> from flax import linen, nnx
      >>> class Net(linen.Module):
      ...     @linen.compact
      ...     def __call__(self, x, train):
      ...         x = linen.BatchNorm(use_running_average=not train)(x.reshape(len(x), -1))
      ...         return linen.Dense(10)(x)
      >>> model = convjax.nn.LinenModel(Net(), jnp.ones((1, 8, 8, 1)), rngs=nnx.Rngs(0))
      >>> trainer = convjax.Trainer(model, convjax.adam())
    """

    def __init__(
        self,
        module: linen.Module,
        images: Any,
        *,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        check_type("module", module, linen.Module, "An NNX module needs no LinenModel.")
        parameters = inspect.signature(type(module).__call__).parameters
        self._mode = next((name for name in MODES if name in parameters), None)
        self._kwargs = nnx.static(kwargs)
        self.deterministic = False
        self.module = nnx.bridge.ToNNX(module, rngs=rngs)
        zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), images)
        nnx.bridge.lazy_init(self.module, zeros, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        if self._mode is None:
            return dict(self._kwargs)
        return self._kwargs | {self._mode: MODES[self._mode] != self.deterministic}

    def __call__(self, images: Any) -> Any:
        """Returns what the Linen module returns."""
        mutable = False if self.deterministic else ["batch_stats"]
        return self.module(images, mutable=mutable, **self._arguments())
