"""Reported faults of initial weights that are too large: saturation and exploding activations."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name

from experiments.diagnosis_study.reported.evaluation_tasks import (
    accuracy,
    cross_entropy,
    digits,
    explained,
    linen_state,
    linen_step,
    measurements,
    next_letters,
    nnx_step,
    optax_step,
    species,
    squared_error,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class LetterNet(nnx.Module):
    """Embeds letters, and maps all of them together to logits, with tanh between.

    Args:
      std: of the embedding and of the hidden layer, or None for the usual.
    """

    def __init__(self, std: float | None, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal() if std is None else nnx.initializers.normal(std)
        self.embed = nnx.Embed(20, 10, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.hidden = nnx.Linear(30, 100, kernel_init=init, rngs=rngs)
        self.head = nnx.Linear(100, 20, kernel_init=nnx.initializers.normal(0.05), rngs=rngs)

    def __call__(self, letters: jax.Array) -> jax.Array:
        """Maps letters (N, 3) to logits (N, 20)."""
        x = self.embed(letters).reshape(len(letters), -1)
        return self.head(nnx.tanh(self.hidden(x)))


def letters_of_std_one(faulty: bool, seed: int) -> Trained:
    """Draws the weights before a tanh from a normal distribution of std 1."""
    train, test = next_letters()
    model = LetterNet(1.0 if faulty else None, nnx.Rngs(seed))
    batches = batches_of(train, size=64, steps=250, seed=seed)
    record = run_nnx(nnx_step(cross_entropy), model, optax.adam(5e-3), batches)
    return Trained(record, accuracy(model(test[0]), test[1]))


class Squashed(linen.Module):
    """Three hidden layers of 100 sigmoids, and ten logits.

    Attributes:
      std: of the weights, or None for the usual.
    """

    std: float | None

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to logits (N, 10)."""
        usual = linen.initializers.variance_scaling(4.0, "fan_in", "normal")
        init = usual if self.std is None else linen.initializers.normal(self.std)
        for _ in range(3):
            x = linen.sigmoid(linen.Dense(100, kernel_init=init)(x))
        return linen.Dense(10)(x)


def sigmoids_of_std_one(faulty: bool, seed: int) -> Trained:
    """Draws the weights before sigmoids from a normal distribution of std 1."""
    train, test = digits(flat=True, step=2)
    mean, std = train[0].mean(), train[0].std()
    train, test = (((x - mean) / std, y) for x, y in (train, test))
    state = linen_state(Squashed(1.0 if faulty else None), train[0], optax.adam(5e-3), seed)
    batches = batches_of(train, size=50, steps=240, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


def actions_at_their_bounds(faulty: bool, seed: int) -> Trained:
    """Imitates actions with a tanh at the output, whose inputs are far beyond its bend."""

    def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        for name in ("first", "second"):
            x = jnp.tanh(checkpoint_name(x @ params[name], name))
        return jnp.tanh(checkpoint_name(x @ params["action"], "action"))

    train, test = (
        (np.pad(x, ((0, 0), (0, 1)), constant_values=1), y / 4) for x, y in measurements()
    )  # a column of ones in place of biases; actions within the bounds
    gain = 12.0 if faulty else 1.0
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"first": (9, 64), "second": (64, 64), "action": (64, 1)}
    params = {
        name: gain * jax.random.normal(key, shape) / jnp.sqrt(shape[0])
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    tx = optax.adam(3e-3)
    step = optax_step(network, squared_error, tx)
    batches = batches_of(train, size=64, steps=250, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, explained(network(params, jnp.asarray(test[0])), test[1]))


class FourConvs(nnx.Module):
    """Four convolutions with ReLU, and a linear layer.

    Args:
      std: of the kernels, or None for the usual.
    """

    def __init__(self, std: float | None, rngs: nnx.Rngs):
        init = nnx.initializers.he_normal() if std is None else nnx.initializers.normal(std)
        features = (1, 8, 16, 16, 16)
        self.convs = nnx.List(
            [
                nnx.Conv(i, o, (3, 3), strides=1 + n % 2, kernel_init=init, rngs=rngs)
                for n, (i, o) in enumerate(pairwise(features))
            ]
        )
        self.head = nnx.Linear(256, 10, kernel_init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 14, 14, 1) to logits (N, 10)."""
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.head(x.reshape(len(x), -1))


def four_convolutions(faulty: bool, seed: int) -> Trained:
    """Draws the kernels of four convolutions with one std, which each multiplies."""
    train, test = digits(step=2)
    model = FourConvs(1.0 if faulty else None, nnx.Rngs(seed))
    batches = batches_of(train, size=50, steps=160, seed=seed)
    record = run_nnx(nnx_step(cross_entropy), model, optax.adam(2e-3), batches)
    return Trained(record, accuracy(model(test[0]), test[1]))


class ReluOfStdOne(linen.Module):
    """Convolutions and dense layers with ReLU.

    Attributes:
      std: of the kernels.
    """

    std: float

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to logits (N, 10)."""
        init = linen.initializers.truncated_normal(self.std)
        for features in (8, 16):
            x = linen.Conv(features, (5, 5), kernel_init=init)(x)
            x = linen.max_pool(linen.relu(x), (2, 2), (2, 2))
        x = linen.relu(linen.Dense(64, kernel_init=init)(x.reshape(len(x), -1)))
        return linen.Dense(10, kernel_init=init)(x)


def relu_of_std_one(faulty: bool, seed: int) -> Trained:
    """Changes sigmoids for ReLU, and leaves the std of 1 that a library draws weights with."""
    train, test = digits(step=2)
    network = ReluOfStdOne(1.0 if faulty else 0.1)
    state = linen_state(network, train[0], optax.sgd(0.1), seed)
    batches = batches_of(train, size=50, steps=200, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


def residuals_without_norm(faulty: bool, seed: int) -> Trained:
    """Takes the norms out of a residual network, whose branches then add up."""
    blocks, width = 8, 48

    def network(params: dict[str, Any], x: jax.Array) -> jax.Array:
        x = checkpoint_name(x @ params["stem"], "stem")
        for i, branch in enumerate(params["blocks"]):
            hidden = checkpoint_name(x @ branch["down"], f"block{i}.down")
            x = x + checkpoint_name(jax.nn.relu(hidden) @ branch["up"], f"block{i}.up")
        return checkpoint_name(x @ params["head"], "head")

    def drawn(key: jax.Array, shape: tuple[int, int], gain: float) -> jax.Array:
        return gain * jnp.sqrt(2 / shape[0]) * jax.random.normal(key, shape)

    train, test = species()
    keys = jax.random.split(jax.random.key(seed), 2 * blocks + 2)
    gain = 2.0 if faulty else 0.4
    params = {
        "stem": drawn(keys[0], (10, width), 0.7),
        "blocks": [
            {"down": drawn(down, (width, width), gain), "up": drawn(up, (width, width), gain)}
            for down, up in keys[2:].reshape(blocks, 2)
        ],
        "head": drawn(keys[1], (width, 4), 0.7),
    }
    tx = optax.adam(2e-3)
    step = optax_step(network, cross_entropy, tx)
    batches = batches_of(train, size=48, steps=240, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, accuracy(network(params, jnp.asarray(test[0])), test[1]))


_SATURATION, _ACTIVATIONS = "saturation", "exploding activations"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "weights of std 1 before tanh, letters",
        "https://breno.bearblog.dev/the-weights-in-a-study-on-fixing-the-saturated-function",
        _SATURATION,
        letters_of_std_one,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "weights of std 1 before sigmoids",
        "https://ho1-lee.github.io/why-Initialize-weights",
        _SATURATION,
        sigmoids_of_std_one,
        "linen",
        0.7,
    ),
    ReportedFault(
        "actions stay at their bounds",
        "https://github.com/floodsung/DDPG/issues/6",
        _SATURATION,
        actions_at_their_bounds,
        "optax",
        0.6,
    ),
    ReportedFault(
        "four convolutions of one std",
        "https://joshvarty.com/2018/02/19/ltfn-6-weight-initialization/",
        _ACTIVATIONS,
        four_convolutions,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "truncated normal weights of std 1 before ReLU",
        "https://e-com-net.com/article/1281957349447188480.htm",
        _ACTIVATIONS,
        relu_of_std_one,
        "linen",
        0.8,
    ),
    ReportedFault(
        "residual network without norms",
        "https://github.com/huangleiBuaa/ONI/issues/1",
        _ACTIVATIONS,
        residuals_without_norm,
        "optax",
        0.75,
    ),
)
