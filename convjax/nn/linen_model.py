"""A Linen module as an NNX module, for what takes NNX modules alone."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen, nnx

from convjax._checks import check_type

# What Linen modules call the argument that tells training from evaluation, and its value in
# training.
MODES = {
    "train": True,
    "training": True,
    "is_train": True,
    "is_training": True,
    "train_mode": True,
    "deterministic": False,
    "use_running_average": False,
    "inference": False,
    "eval": False,
    "is_eval": False,
}


class LinenModel(nnx.Module):
    """A Linen module with its variables, which trains and evaluates as an NNX module does.

    `train()` and `eval()` set the mode, which the call passes to the module by the argument that it
    has for it, such as train, training, deterministic or use_running_average. Batch statistics are
    updated in training, and dropout gets a new key at each call.

    Args:
      module: the Linen module, whose call takes the images first.
      images: an array or `jax.ShapeDtypeStruct` such as it will get, by which its variables are
        initialised. Images of a `convjax.Trainer` arrive normalised, as float32.
      rngs: source of the initial variables, and of the keys for dropout.
      modes: other names of that argument with their values in training, such as
        {"stochastic": True}.
      **kwargs: further arguments of every call.

    Attributes:
      deterministic: whether the module evaluates.

    Raises:
      TypeError: if the module is not of Linen.
      ValueError: if it has batch statistics or dropout, and no argument is known for its mode.

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
        modes: Mapping[str, bool] | None = None,
        **kwargs: Any,
    ):
        check_type("module", module, linen.Module, "An NNX module needs no LinenModel.")
        parameters = inspect.signature(type(module).__call__).parameters
        known = MODES if modes is None else modes
        self._modes = nnx.static({n: value for n, value in known.items() if n in parameters})
        self._kwargs = nnx.static(kwargs)
        self.deterministic = False
        self.module = nnx.bridge.ToNNX(module, rngs=rngs)
        zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), images)
        nnx.bridge.lazy_init(self.module, zeros, **self._arguments())
        if not self._modes and self._changes(zeros):
            raise ValueError(
                f"modes must name the argument by which {type(module).__name__} tells training "
                f"from evaluation, got none that is known among {', '.join(parameters)}: it has "
                'batch statistics or dropout. Pass modes={"name": value in training}.'
            )

    def _changes(self, images: Any) -> bool:
        """Returns whether the module has batch statistics, or draws numbers at each call."""
        if jax.tree.leaves(nnx.state(self.module, nnx.BatchStat)):
            return True
        drawn = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape), images)
        outputs = [jax.tree.leaves(nnx.clone(self.module)(drawn, **self._kwargs))]
        self.module(drawn, **self._kwargs)  # takes a key
        outputs.append(jax.tree.leaves(self.module(drawn, **self._kwargs)))
        return any(bool((a != b).any()) for a, b in zip(*outputs, strict=True))

    def _arguments(self) -> dict[str, Any]:
        modes = {n: training != self.deterministic for n, training in self._modes.items()}
        return {**self._kwargs, **modes}

    def __call__(self, images: Any) -> Any:
        """Returns what the Linen module returns."""
        mutable = False if self.deterministic else ["batch_stats"]
        return self.module(images, mutable=mutable, **self._arguments())
