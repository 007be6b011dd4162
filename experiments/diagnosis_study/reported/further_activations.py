"""Further reported faults of initial weights that are too large."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenConv,
    LinenDense,
    cross_entropy,
    fit_nnx,
    lecun_normal,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import accuracy, digits, tones
from experiments.diagnosis_study.reported.evaluation_tasks import linen_state, linen_step
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure


def uniform(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Returns weights between -1 and 1, whatever the number of inputs."""
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


class Squashed(linen.Module):
    """Hidden layers of tanh, and ten logits.

    Attributes:
      unscaled: whether the weights are drawn from -1 to 1.
    """

    unscaled: bool

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        init = uniform if self.unscaled else lecun_normal
        x = x.reshape(len(x), -1)
        for features in (96, 96, 96, 96, 96):
            x = linen.tanh(linen.Dense(features, kernel_init=init)(x))
        return linen.Dense(10, kernel_init=init)(x)


def _weights_between_one_and_minus_one(faulty: bool, seed: int) -> Trained:
    """Draws the weights before tanh from -1 to 1, not scaled by the number of inputs."""
    task = digits()
    state = linen_state(Squashed(faulty), task.x, optax.sgd(0.05, momentum=0.9), seed)
    batches = batches_of((task.x, task.y), size=64, steps=200, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    logits = state.apply_fn({"params": state.params}, task.test_x)
    return Trained(record, accuracy(logits, task.test_y))


class GatedReader(nnx.Module):
    """A recurrent layer with gates, in frames of eight samples, and logits of its last state.

    Args:
      std: of the weights, or None for the usual.
    """

    def __init__(self, std: float | None, rngs: nnx.Rngs):
        init = lecun_normal if std is None else nnx.initializers.normal(std)
        self.enter = nnx.Linear(8, 128, kernel_init=init, rngs=rngs)
        self.recur = nnx.Linear(32, 128, use_bias=False, kernel_init=init, rngs=rngs)
        self.head = nnx.Linear(32, 4, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps waves (N, T) to logits (N, 4)."""
        state = cell = jnp.zeros((len(x), 32))
        for frame in jnp.split(x, 12, 1):
            gates = jnp.split(self.enter(frame) + self.recur(state), 4, 1)
            write, keep, show = (nnx.sigmoid(gate) for gate in gates[:3])
            cell = keep * cell + write * nnx.tanh(gates[3])
            state = show * nnx.tanh(cell)
        return self.head(state)


def _gates_of_large_weights(faulty: bool, seed: int) -> Trained:
    """Draws the weights of all gates from a wide normal distribution."""
    task, model = tones(), GatedReader(6.0 if faulty else None, nnx.Rngs(seed))
    arrays, options = (task.x, task.y), {"size": 50, "steps": 200, "seed": seed}
    record = fit_nnx(model, optax.adam(5e-3), cross_entropy, arrays, **options)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


class BoardNet(linen.Module):
    """Residual blocks of two convolutions, and logits.

    Attributes:
      sizes_added: whether the std of a kernel is by the sum of its four sizes.
    """

    sizes_added: bool

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        x = linen.relu(LinenConv(12, (5, 5), strides=4)(x))
        # For 12 channels: sqrt(2 / (3 + 3 + 12 + 12)), or sqrt(2 / (9 * 12 + 9 * 12)).
        init = linen.initializers.normal(0.258 if self.sizes_added else 0.096)
        for _ in range(4):
            y = linen.relu(linen.Conv(12, (3, 3), kernel_init=init)(x))
            x = linen.relu(x + linen.Conv(12, (3, 3), kernel_init=init)(y))
        return LinenDense(10)(x.reshape(len(x), -1))


def _sum_of_the_sizes(faulty: bool, seed: int) -> Trained:
    """Scales kernels by the sum of their sizes, so that each block multiplies its input."""
    task = digits()
    state = linen_state(BoardNet(faulty), task.x, optax.sgd(0.02, momentum=0.9), seed)
    batches = batches_of((task.x, task.y), size=32, steps=200, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    logits = state.apply_fn({"params": state.params}, task.test_x)
    return Trained(record, accuracy(logits, task.test_y))


_SATURATION = "saturation"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "weights from -1 to 1 before tanh",
        _GITHUB + "HuwCampbell/grenade/issues/51",
        _SATURATION,
        _weights_between_one_and_minus_one,
        "linen",
        0.8,
    ),
    ReportedFault(
        "gates of large weights",
        _GITHUB + "mukul-rathi/deep-learning-tutorials/issues/2",
        _SATURATION,
        _gates_of_large_weights,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "kernels scaled by the sum of their sizes",
        _GITHUB + "LeelaChessZero/lczero-training/pull/43",
        "exploding activations",
        _sum_of_the_sizes,
        "linen",
        0.8,
    ),
)
