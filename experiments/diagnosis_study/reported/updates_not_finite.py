"""Reported faults of the optimiser that make parameters NaN, of gradients that are finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.evaluation_tasks import (
    accuracy,
    binary_accuracy,
    binary_cross_entropy,
    cross_entropy,
    dense,
    dense_params,
    linen_state,
    linen_step,
    nnx_step,
    optax_step,
    rings,
    species,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class _Moments(NamedTuple):
    mean: Any
    square: Any


def own_adam(rate: float, *, centred: bool) -> optax.GradientTransformation:
    """Returns an Adam of one's own, without the correction of the first steps.

    Args:
      rate: the learning rate.
      centred: whether the square of the mean, which forgets faster, is taken off the mean of the
        squares; after a dozen similar gradients the difference is negative.
    """

    def init(params: Any) -> _Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return _Moments(zeros, zeros)

    def update(grads: Any, state: _Moments, params: Any = None) -> tuple[Any, _Moments]:
        mean = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g, state.mean, grads)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, state.square, grads)

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            return -rate * m / (jnp.sqrt(v - m**2 if centred else v) + 1e-8)

        return jax.tree.map(step, mean, square), _Moments(mean, square)

    return optax.GradientTransformation(init, update)


class MaskNet(nnx.Module):
    """Convolutions down and up again."""

    def __init__(self, rngs: nnx.Rngs):
        self.down = nnx.Conv(1, 12, (3, 3), strides=2, rngs=rngs)
        self.middle = nnx.Conv(12, 12, (3, 3), rngs=rngs)
        self.up = nnx.ConvTranspose(12, 12, (2, 2), strides=2, rngs=rngs)
        self.mask = nnx.Conv(13, 1, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to logits of the same shape."""
        y = nnx.relu(self.up(nnx.relu(self.middle(nnx.relu(self.down(x))))))
        return self.mask(jnp.concatenate([x, y], -1))


def negative_second_moment(faulty: bool, seed: int) -> Trained:
    """Takes the root of a second moment that can be negative."""
    train, test = strokes()
    model = MaskNet(nnx.Rngs(seed))
    batches = batches_of(train, size=32, steps=150, seed=seed)
    tx = own_adam(1e-2, centred=faulty)
    record = run_nnx(nnx_step(binary_cross_entropy), model, tx, batches)
    return Trained(record, binary_accuracy(model(test[0]), test[1]))


class ZeroHead(linen.Module):
    """Hidden layers and a head that begins at zero, as is usual in large networks."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to logits (N, 4)."""
        for _ in range(2):
            x = linen.relu(linen.Dense(48)(x))
        return linen.Dense(4, kernel_init=linen.initializers.zeros)(x)


def zero_over_zero(faulty: bool, seed: int) -> Trained:
    """Divides each gradient by its norm, which is 0 behind a layer that begins at zero."""
    least = 0.0 if faulty else 1e-8

    def normalized(grads: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda g: g / jnp.maximum(jnp.linalg.norm(g), least), grads)

    tx = optax.chain(optax.stateless(normalized), optax.trace(0.9), optax.scale(-0.02))
    train, test = species()
    state = linen_state(ZeroHead(), train[0], tx, seed)
    batches = batches_of(train, size=64, steps=250, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


def schedule_of_no_steps(faulty: bool, seed: int) -> Trained:
    """Anneals the weight decay over a number of steps that was left at 0."""
    total = 0 if faulty else 200

    def decay(count: jax.Array) -> jax.Array:
        return 0.01 * 0.5 * (1 + jnp.cos(jnp.pi * count / jnp.float32(total)))

    tx = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(decay), optax.scale(-5e-3))

    def network(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x, jnp.tanh)[:, 0]

    train, test = rings()
    params = dense_params((2, 32, 32, 1), seed)
    step = optax_step(network, binary_cross_entropy, tx)
    batches = batches_of(train, size=50, steps=200, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, binary_accuracy(network(params, jnp.asarray(test[0])), test[1]))


_NOT_FINITE = "parameters not finite"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "root of a negative second moment",
        "https://github.com/tensorflow/tensorflow/issues/74879",
        _NOT_FINITE,
        negative_second_moment,
        "nnx",
        0.9,
    ),
    ReportedFault(
        "normalised update of a gradient of zero",
        "https://github.com/microsoft/dion/pull/24",
        _NOT_FINITE,
        zero_over_zero,
        "linen",
        0.8,
    ),
    ReportedFault(
        "weight decay annealed over no steps",
        "https://github.com/OverLordGoldDragon/keras-adamw/pull/2",
        _NOT_FINITE,
        schedule_of_no_steps,
        "optax",
        0.9,
    ),
)
