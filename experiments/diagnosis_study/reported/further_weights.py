"""Further reported faults of the initial weights: zero, too small, or dead."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    lecun_normal,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    accuracy,
    binary_accuracy,
    digits,
    explained,
    houses,
)
from experiments.diagnosis_study.reported.evaluation_tasks import (
    rings,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained


class Blocks(nnx.Module):
    """Residual blocks of two linear layers, and an output.

    Args:
      zero: whether both layers of a block begin at zero, so that it is the identity.
    """

    def __init__(self, zero: bool, rngs: nnx.Rngs):
        last = nnx.initializers.zeros
        first = last if zero else lecun_normal

        def layers(init: Any) -> nnx.List:
            return nnx.List([nnx.Linear(24, 24, kernel_init=init, rngs=rngs) for _ in range(3)])

        self.enter = nnx.Linear(8, 24, kernel_init=lecun_normal, rngs=rngs)
        self.first, self.second = layers(first), layers(last)
        self.out = nnx.Linear(24, 1, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, 8) to outputs (N, 1)."""
        x = self.enter(x)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(nnx.relu(first(x)))
        return self.out(x)


def _blocks_of_zeros(faulty: bool, seed: int) -> Trained:
    """Begins all layers of residual blocks at zero, of which only the last should."""
    task, model = houses(), Blocks(faulty, nnx.Rngs(seed))
    arrays, options = (task.x, task.y), {"size": 50, "steps": 250, "seed": seed}
    record = fit_nnx(model, optax.adam(5e-3), squared_error, arrays, **options)
    return Trained(record, explained(predict(model, task.test_x), task.test_y))


def _aggregation_of_zeros(faulty: bool, seed: int) -> Trained:
    """Weighs the outputs of earlier layers by a ReLU of a projection that begins at zero."""
    rng = np.random.default_rng(seed)
    layers = dense_params(seed, (784, 48, 48, 48, 10))
    gate = np.zeros((48, 3)) if faulty else 0.1 * np.abs(rng.normal(size=(48, 3)))
    params = {"layers": layers, "gate": jnp.asarray(gate, jnp.float32)}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        *hidden, out = params["layers"]
        outputs, y = [], x.reshape(len(x), -1)
        for layer in hidden:
            y = jax.nn.relu(y @ layer["w"] + layer["b"])
            outputs.append(y / jnp.sqrt(jnp.mean(y**2, -1, keepdims=True) + 1e-6))
        weights = jax.nn.relu(outputs[-1] @ params["gate"])
        y = sum(weights[:, i : i + 1] * output for i, output in enumerate(outputs))
        return y @ out["w"] + out["b"]

    task, options = digits(), {"size": 50, "steps": 200, "seed": seed}
    arrays = task.x, task.y
    record, params = fit_pure(apply, params, optax.adam(2e-3), cross_entropy, arrays, **options)
    return Trained(record, accuracy(apply(params, jnp.asarray(task.test_x)), task.test_y))


class Occupancy(nnx.Module):
    """Maps points to whether a shape has them; weights are of one std, whatever the width.

    Args:
      skip: whether each layer gets the points, too.
    """

    def __init__(self, skip: bool, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.05)
        sizes = (2, 32, 32, 32, 32, 32)
        self.skip = skip
        self.layers = nnx.List(
            [
                nnx.Linear(i + 2 * (skip and n > 0), o, kernel_init=init, rngs=rngs)
                for n, (i, o) in enumerate(pairwise(sizes))
            ]
        )
        self.out = nnx.Linear(32, 1, kernel_init=init, rngs=rngs)

    def __call__(self, points: jax.Array) -> jax.Array:
        """Maps points (N, 2) to occupancies (N,) between 0 and 1."""
        x = points
        for n, layer in enumerate(self.layers):
            x = jnp.concatenate([x, points], -1) if self.skip and n else x
            x = nnx.leaky_relu(layer(x), 0.02)
        return nnx.sigmoid(self.out(x)[:, 0])


def _no_skip_connections(faulty: bool, seed: int) -> Trained:
    """Leaves out the connections from the points to each layer, with a sigmoid at the output."""
    train, test = rings()
    model = Occupancy(not faulty, nnx.Rngs(seed))
    options = {"size": 50, "steps": 300, "seed": seed}
    record = fit_nnx(model, optax.sgd(1.0, momentum=0.9), squared_error, train, **options)
    return Trained(record, binary_accuracy(predict(model, test[0]) - 0.5, test[1]))


def _biases_far_below_zero(faulty: bool, seed: int) -> Trained:
    """Draws biases of a wide normal distribution, so that all ReLUs of a narrow layer are dead."""
    params = dense_params(seed, (8, 48, 12, 1))
    if faulty:
        params[1]["b"] = params[1]["b"] - 30.0

    task, options = houses(), {"size": 50, "steps": 250, "seed": seed}

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x)

    arrays, tx = (task.x, task.y), optax.adagrad(0.05)
    record, params = fit_pure(apply, params, tx, squared_error, arrays, **options)
    return Trained(record, explained(apply(params, jnp.asarray(task.test_x)), task.test_y))


_ZERO = "zero weights"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "residual blocks that begin at zero",
        _GITHUB + "DrChainsaw/NaiveGAflux.jl/issues/39",
        _ZERO,
        _blocks_of_zeros,
        "nnx",
        0.85,
    ),
    ReportedFault(
        "ReLU of a projection that begins at zero",
        _GITHUB + "lucidrains/deep-cross-attention/issues/2",
        _ZERO,
        _aggregation_of_zeros,
        "optax",
        0.8,
    ),
    ReportedFault(
        "occupancy without skip connections",
        _GITHUB + "czq142857/IM-NET-pytorch/issues/5",
        "vanishing gradients",
        _no_skip_connections,
        "nnx",
        0.9,
    ),
    ReportedFault(
        "biases far below zero before ReLU",
        _GITHUB + "facebookresearch/dlrm/pull/358",
        "dead layer",
        _biases_far_below_zero,
        "optax",
        0.75,
    ),
)
