"""Reported faults: outputs of another shape than the target."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    Linear,
    LinenCnn,
    Mlp,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    binary_accuracy,
    chosen_digits,
    explained,
    houses,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx

# --- shapes of output and target differ ------------------------------------------------------


def _linear_regression(faulty: bool, seed: int) -> Trained:
    """Outputs (100, 1) and targets (100,) of a linear regression differ in shape."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(300, 2)).astype(np.float32)
    y = (10 + 9 * x[:, 0] - 2 * x[:, 1] + rng.normal(size=300)).astype(np.float32)

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        target = y if faulty else y[:, None]
        return jnp.mean((outputs - target) ** 2)

    record, params = fit_pure(
        dense,
        dense_params(seed, (2, 1)),
        optax.sgd(0.05),
        loss,
        (x[:200], y[:200]),
        size=100,
        steps=150,
        seed=seed,
    )
    return Trained(record, explained(dense(params, jnp.asarray(x[200:])), y[200:]))


def _column_of_targets(faulty: bool, seed: int) -> Trained:
    """The targets are a column (64, 1), the outputs are flattened to (64,)."""
    task = houses()
    y = task.y[:, None] if faulty else task.y

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(y - outputs))

    model = Mlp((8, 64, 64, 1), last=lambda x: x[:, 0], rngs=nnx.Rngs(seed))
    record = fit_nnx(model, optax.adamw(3e-3), loss, (task.x, y), size=64, steps=250, seed=seed)
    return Trained(record, explained(predict(model, task.test_x), task.test_y))


def _binary_logits(faulty: bool, seed: int) -> Trained:
    """Logits (50, 1) and labels (50,) of two classes enter a binary cross entropy."""
    task, net = chosen_digits(3, 7), LinenCnn(1)

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        labels = labels.astype(jnp.float32) if faulty else labels[:, None].astype(jnp.float32)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(2e-3),
        loss,
        (task.x, task.y),
        size=50,
        steps=150,
        seed=seed,
    )
    return Trained(record, binary_accuracy(net.apply(params, task.test_x), task.test_y))


def _readout_of_points(faulty: bool, seed: int) -> Trained:
    """A property (32, 1) of sets of points is compared with a readout (32,), by Huber's loss."""
    rng = np.random.default_rng(SEED)
    points = rng.normal(size=(1900, 6, 3)).astype(np.float32)
    y = np.exp(-np.sum(points**2, -1)).sum(1).astype(np.float32)
    y = ((y - y.mean()) / y.std())[:, None]

    class Sets(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.inner, self.inner2 = (
                Linear(3, 48, rngs=rngs),
                Linear(48, 48, rngs=rngs),
            )
            self.norm, self.readout = nnx.LayerNorm(48, rngs=rngs), Linear(48, 1, rngs=rngs)

        def __call__(self, points: jax.Array) -> jax.Array:
            x = nnx.silu(self.inner2(nnx.silu(self.inner(points)))).sum(1)
            x = self.readout(nnx.silu(self.norm(x)))
            return x[:, 0] if faulty else x

    def train_step(model: Any, optimizer: Any, points: jax.Array, prop: jax.Array) -> Any:
        def loss_fn(model: Any) -> Any:
            return optax.huber_loss(model(points), prop).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return {"loss": loss}

    model = Sets(nnx.Rngs(seed))
    batches = batches_of((points[:1500], y[:1500]), size=32, steps=300, seed=seed)
    record = run_nnx(train_step, model, optax.adam(5e-3), batches)
    return Trained(record, explained(predict(model, points[1500:]), y[1500:]))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "linear regression, (N, 1) and (N,)",
        "https://github.com/pytorch/pytorch/issues/16045",
        "shapes of output and target differ",
        _linear_regression,
        "optax",
        0.8,
    ),
    ReportedFault(
        "column of targets",
        "https://github.com/LAMDA-Tabular/TALENT/pull/92",
        "shapes of output and target differ",
        _column_of_targets,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "binary logits, (N, 1) and (N,)",
        "https://github.com/tensorflow/tensorflow/issues/1343",
        "shapes of output and target differ",
        _binary_logits,
        "linen",
        0.9,
    ),
    ReportedFault(
        "readout of points",
        "https://github.com/IntelLabs/matsciml/pull/347",
        "shapes of output and target differ",
        _readout_of_points,
        "nnx",
        0.7,
    ),
)
