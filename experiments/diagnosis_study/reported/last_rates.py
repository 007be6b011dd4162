"""Reported faults of rates and scales, of the last collection."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    Conv,
    Linear,
    LinenConv,
    LinenDense,
    UNet,
    cross_entropy,
    dense,
    dense_params,
    fit_linen,
    fit_nnx,
    fit_pure,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import accuracy, digits, explained
from experiments.diagnosis_study.reported.evaluation_tasks import series
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import HostArray, Trained, batches_of, run_pure


def _small(images: HostArray) -> HostArray:
    return images.reshape(len(images), 14, 2, 14, 2).mean((2, 4), dtype=np.float32)[..., None]


def _lion_in_place_of_adamw(faulty: bool, seed: int) -> Trained:
    """Lion, whose steps have the size of the rate, gets the rate of AdamW for a denoiser."""
    task, rng = digits(), np.random.default_rng(0)
    y, test_y = _small(task.x), _small(task.test_x)
    x, test_x = (
        (image + 0.25 * rng.normal(size=image.shape)).astype(np.float32) for image in (y, test_y)
    )
    model = UNet(1, rngs=nnx.Rngs(seed))
    tx = optax.lion(3e-2 if faulty else 1e-3)
    record = fit_nnx(model, tx, squared_error, (x, y), size=16, steps=200, seed=seed)
    return Trained(record, explained(predict(model, test_x).ravel(), test_y.ravel()))


class SuperResolution(linen.Module):
    """Convolutions of a coarse image, made finer by moving channels into space."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 7, 7, 1) to images (N, 14, 14, 1)."""
        y = linen.PReLU()(LinenConv(24, (3, 3))(x))
        y = linen.PReLU()(LinenConv(24, (3, 3))(y))
        y = LinenConv(4, (3, 3))(y).reshape(-1, 7, 7, 2, 2)
        return y.transpose(0, 1, 3, 2, 4).reshape(-1, 14, 14, 1)


def _scheduler_of_a_generator(faulty: bool, seed: int) -> Trained:
    """The rate is divided by ten every five steps, which should have been five epochs."""
    task = digits()
    y, test_y = _small(task.x), _small(task.test_x)
    x, test_x = (
        image.reshape(-1, 7, 2, 7, 2, 1).mean((2, 4)).astype(np.float32) for image in (y, test_y)
    )
    every = 5 if faulty else 5 * len(x) // 32
    rate = optax.exponential_decay(3e-3, every, 0.1, staircase=True)
    record, net = fit_linen(
        SuperResolution(), optax.adam(rate), squared_error, (x, y), size=32, steps=200, seed=seed
    )
    return Trained(record, explained(net(test_x).ravel(), test_y.ravel()))


class Projected(linen.Module):
    """An LSTM whose state is projected, read over a long series.

    Attributes:
      scale: of the weights of the state.
    """

    scale: float = 1.6

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps series (N, T, 1) to outputs (N, 1)."""
        entered = LinenDense(4 * 32, name="enter")(x)
        state_init = linen.initializers.variance_scaling(self.scale**2, "fan_in", "normal")
        recur = self.param("recur", state_init, (16, 4 * 32))
        project = self.param("project", state_init, (32, 16))

        def read(carry: Any, gates: jax.Array) -> Any:
            cell, state = carry
            i, f, o, g = jnp.split(gates + state @ recur, 4, axis=-1)
            cell = jax.nn.sigmoid(f + 2) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            state = (jax.nn.sigmoid(o) * jnp.tanh(cell)) @ project
            return (cell, state), None

        start = jnp.zeros((len(x), 32)), jnp.zeros((len(x), 16))
        (_, state), _ = jax.lax.scan(read, start, jnp.swapaxes(entered, 0, 1))
        return LinenDense(1, name="out")(state)


def _projected_states_without_clipping(faulty: bool, seed: int) -> Trained:
    """An LSTM with projected states reads long series; its gradients should be clipped to 1."""
    train, test = series(first=False)
    sgd = optax.sgd(0.03, momentum=0.9)
    tx = sgd if faulty else optax.chain(optax.clip_by_global_norm(1.0), sgd)
    record, net = fit_linen(Projected(2.2), tx, squared_error, train, size=50, steps=200, seed=seed)
    return Trained(record, explained(net(test[0]), test[1]))


def _normal_weights_in_many_layers(faulty: bool, seed: int) -> Trained:
    """Each of ten layers has weights of deviation 1, whatever the number of its inputs."""
    task = digits()
    params = dense_params(seed, (784, *(64,) * 9, 10))
    if faulty:
        for layer in params:
            layer["w"] = layer["w"] / jnp.sqrt(2 / len(layer["w"]))
    arrays, tx = (task.x, task.y), optax.adam(1e-3)
    record, params = fit_pure(
        dense, params, tx, cross_entropy, arrays, size=50, steps=150, seed=seed
    )
    logits = jax.jit(dense)(params, jnp.asarray(task.test_x))
    return Trained(record, accuracy(logits, task.test_y))


class Finder(nnx.Module):
    """Convolutions, and a logit for each class of object."""

    def __init__(self, rngs: nnx.Rngs):
        sizes = (1, 8, 16, 32)
        self.convs = nnx.List(
            [Conv(i, o, (3, 3), strides=2, rngs=rngs) for i, o in pairwise(sizes)]
        )
        self.hidden = Linear(512, 48, rngs=rngs)
        self.out = Linear(48, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.out(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def _peak_of_a_larger_machine(faulty: bool, seed: int) -> Trained:
    """The rate of a configuration for a far larger batch is reached after a warm-up."""
    task, model = digits(), Finder(nnx.Rngs(seed))
    rate = optax.warmup_cosine_decay_schedule(0.003, 0.5 if faulty else 0.06, 140, 220)
    arrays, tx = (task.x, task.y), optax.sgd(rate, momentum=0.9)
    record = fit_nnx(model, tx, cross_entropy, arrays, size=32, steps=200, seed=seed)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _sum_of_a_variational_loss(faulty: bool, seed: int) -> Trained:
    """The loss of a variational autoencoder is summed over the batch, at the rate of its mean."""
    task = digits()
    y, test_y = (_small(x).reshape(len(x), -1) for x in (task.x, task.test_x))
    noise = np.random.default_rng(0).normal(size=(len(y), 8)).astype(np.float32)
    params: Any = {
        "encoder": dense_params(seed, (196, 64, 16)),
        "decoder": dense_params(seed + 1, (8, 64, 196)),
    }

    def code(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = dense(params["encoder"], x, jnp.tanh)
        return z[:, :8], z[:, 8:]

    def step(params: Any, opt_state: Any, x: jax.Array, noise: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            mean, log_variance = code(params, x)
            z = mean + noise * jnp.exp(log_variance / 2)
            logits = dense(params["decoder"], z, jnp.tanh)
            errors = optax.sigmoid_binary_cross_entropy(logits, x).sum(1)
            divergence = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance, 1)
            each = errors + divergence
            return each.sum() if faulty else each.mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    tx = optax.sgd(6e-3, momentum=0.9)
    batches = batches_of((y, noise), size=64, steps=300, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    images = jax.nn.sigmoid(
        dense(params["decoder"], code(params, jnp.asarray(test_y))[0], jnp.tanh)
    )
    return Trained(record, explained(np.asarray(images).ravel(), test_y.ravel()))


_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "Lion at the rate of AdamW",
        _GITHUB + "lucidrains/denoising-diffusion-pytorch/issues/170",
        "learning rate too high",
        _lion_in_place_of_adamw,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "scheduler of a generator in the loop over batches",
        _GITHUB + "Lornatang/SRGAN-PyTorch/issues/1",
        "learning rate too low",
        _scheduler_of_a_generator,
        "linen",
        0.7,
    ),
    ReportedFault(
        "projected states without clipping",
        _GITHUB + "Marcovaldong/lstmp.pytorch/issues/2",
        "exploding gradients",
        _projected_states_without_clipping,
        "linen",
        0.7,
    ),
    ReportedFault(
        "normal weights in ten layers",
        _GITHUB + "guevara/read-it-later/issues/3921",
        "exploding activations",
        _normal_weights_in_many_layers,
        "optax",
        0.75,
    ),
    ReportedFault(
        "peak of the rate of a larger machine",
        _GITHUB + "tensorflow/models/pull/10531",
        "collapse",
        _peak_of_a_larger_machine,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "variational loss summed over the batch",
        _GITHUB + "wiseodd/generative-models/issues/40",
        "loss summed over the batch",
        _sum_of_a_variational_loss,
        "optax",
        0.5,
    ),
)
