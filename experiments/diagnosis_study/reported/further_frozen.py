"""Further reported faults that leave a part of the parameters as it was."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenConv,
    LinenDense,
    cross_entropy,
    fit_nnx,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import accuracy, digits
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure


class Unregistered(nnx.Variable[jax.Array]):
    """A weight that the optimiser does not know as a parameter."""


class Layers(nnx.Module):
    """Layers whose weights are kept in lists.

    Args:
      sizes: of the inputs and of the layers.
      registered: whether the weights in the lists are parameters.
    """

    def __init__(self, sizes: Sequence[int], registered: bool, rngs: nnx.Rngs):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(rngs.params())))
        kind: Any = nnx.Param if registered else Unregistered
        self.kernels = nnx.List(
            [
                kind(jnp.asarray(rng.normal(size=(i, o)) * np.sqrt(2 / i), jnp.float32))
                for i, o in pairwise(sizes)
            ]
        )
        self.biases = nnx.List([kind(jnp.zeros(o)) for o in sizes[1:]])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        x = x.reshape(len(x), -1)
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = (nnx.relu(x) if i else x) @ kernel[...] + bias[...]
        return x


def _layers_in_lists(faulty: bool, seed: int) -> Trained:
    """Keeps the layers where the optimiser does not look for parameters."""
    task, model = digits(), Layers((784, 64, 10), not faulty, nnx.Rngs(seed))
    arrays, options = (task.x, task.y), {"size": 50, "steps": 200, "seed": seed}
    record = fit_nnx(model, optax.rmsprop(1e-3), cross_entropy, arrays, **options)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


class Backbone(linen.Module):
    """Convolutions and the mean over the image."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to features (N, 24)."""
        for features in (8, 16, 24):
            x = linen.relu(LinenConv(features, (3, 3), strides=2)(x))
        return x.mean((1, 2))


def _frozen_by_a_flag(faulty: bool, seed: int) -> Trained:
    """Trains the layer after the convolutions alone, because a flag was left on."""
    task, tx = digits(), optax.sgd(0.1, momentum=0.9)
    backbone, head = Backbone(), LinenDense(10)
    trained = (1,) if faulty else (0, 1)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(convs: Any, dense: Any) -> jax.Array:
            logits = head.apply({"params": dense}, backbone.apply({"params": convs}, x))
            return optax.softmax_cross_entropy(logits, jax.nn.one_hot(y, 10)).mean()

        loss, grads = jax.value_and_grad(loss_fn, argnums=trained)(*params)
        moved = tuple(params[i] for i in trained)
        updates, opt_state = tx.update(grads, opt_state, moved)
        moved = optax.apply_updates(moved, updates)
        return (params[0], *moved) if faulty else moved, opt_state, loss

    convs = backbone.init(jax.random.key(seed), task.x[:2])["params"]
    dense = head.init(jax.random.key(seed + 1), jnp.zeros((2, 24)))["params"]
    state = (convs, dense), tx.init((dense,) if faulty else (convs, dense))
    batches = batches_of((task.x, task.y), size=50, steps=250, seed=seed)
    record, (params, _) = run_pure(step, state, batches)
    features = backbone.apply({"params": params[0]}, task.test_x)
    return Trained(record, accuracy(head.apply({"params": params[1]}, features), task.test_y))


_FROZEN = "parameters frozen"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "layers in arrays are not registered",
        _GITHUB + "dotnet/TorchSharp/issues/532",
        _FROZEN,
        _layers_in_lists,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "convolutions frozen by a flag",
        _GITHUB + "ihciah/deep-fashion-retrieval/issues/1",
        _FROZEN,
        _frozen_by_a_flag,
        "linen",
        0.75,
    ),
)
