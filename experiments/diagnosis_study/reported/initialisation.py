"""Reported faults of the initialisation after which layers get a gradient of zero, or nearly."""

from itertools import pairwise
from typing import Any

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
    digits,
    explained,
    linen_state,
    linen_step,
    measurements,
    nnx_step,
    optax_step,
    rings,
    squared_error,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class Frozen(nnx.Variable[jax.Array]):
    """A weight that no optimiser trains."""


class Adapted(nnx.Module):
    """A linear layer with frozen weights, and a trained product of two narrow matrices.

    Args:
      features: of input and output.
      zero: whether both matrices begin at zero, instead of the second alone.
    """

    def __init__(self, features: tuple[int, int], zero: bool, rngs: nnx.Rngs):
        inputs, outputs = features
        he, zeros = nnx.initializers.he_normal(), nnx.initializers.zeros
        self.base = Frozen(he(rngs.params(), features))
        self.narrow = nnx.Linear(
            inputs, 6, use_bias=False, kernel_init=zeros if zero else he, rngs=rngs
        )
        self.wide = nnx.Linear(6, outputs, use_bias=False, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, inputs) to (N, outputs)."""
        return x @ self.base[...] + self.wide(self.narrow(x))


class AdaptedNet(nnx.Module):
    """Two adapted layers and a head that is trained as usual."""

    def __init__(self, zero: bool, rngs: nnx.Rngs):
        self.first = Adapted((196, 48), zero, rngs)
        self.second = Adapted((48, 48), zero, rngs)
        self.head = nnx.Linear(48, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, 196) to logits (N, 10)."""
        return self.head(nnx.relu(self.second(nnx.relu(self.first(x)))))


def both_factors_zero(faulty: bool, seed: int) -> Trained:
    """Begins both factors of an adapter at zero, so that neither gets a gradient."""
    train, test = digits(flat=True, step=2)
    model = AdaptedNet(faulty, nnx.Rngs(seed))
    batches = batches_of(train, size=50, steps=200, seed=seed)
    record = run_nnx(nnx_step(cross_entropy), model, optax.adam(6e-3), batches)
    return Trained(record, accuracy(model(test[0]), test[1]))


def all_zero(faulty: bool, seed: int) -> Trained:
    """Begins all weights of three layers at zero, for two classes."""

    def network(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x)[:, 0]

    train, test = rings()
    params = dense_params((2, 20, 12, 1), seed, gain=0.0 if faulty else 1.0)
    tx = optax.sgd(0.3)
    step = optax_step(network, binary_cross_entropy, tx)
    batches = batches_of(train, size=50, steps=250, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, binary_accuracy(network(params, jnp.asarray(test[0])), test[1]))


class OneHidden(linen.Module):
    """A hidden layer whose units compete, as in a classifier, and ten logits.

    Attributes:
      zero: whether all weights begin at zero.
    """

    zero: bool

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to logits (N, 10)."""
        init = linen.initializers.zeros if self.zero else linen.initializers.lecun_normal()
        hidden = linen.Dense(32, kernel_init=init)(x)
        x = linen.softmax(hidden) if self.zero else linen.sigmoid(hidden)
        return linen.Dense(10, kernel_init=init)(x)


def softmax_of_zeros(faulty: bool, seed: int) -> Trained:
    """Adds a hidden layer to a classifier that began at zero, and begins that at zero, too."""
    train, test = digits(flat=True)
    state = linen_state(OneHidden(faulty), train[0], optax.sgd(0.5), seed)
    batches = batches_of(train, size=100, steps=250, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


def line_of_tiny_weights(faulty: bool, seed: int) -> Trained:
    """Puts a further layer between two whose weights have a std of a thousandth."""
    params = dense_params((8, 32, 32, 1), seed)
    if faulty:
        tiny = jax.random.split(jax.random.key(seed), len(params))
        for key, layer in zip(tiny, params.values(), strict=True):
            layer["kernel"] = 1e-3 * jax.random.normal(key, layer["kernel"].shape)
    tx = optax.chain(optax.clip(4.5), optax.sgd(0.03))
    train, test = measurements()
    step = optax_step(dense, squared_error, tx)
    batches = batches_of(train, size=40, steps=250, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, explained(dense(params, jnp.asarray(test[0])), test[1]))


class Deep(nnx.Module):
    """Five hidden layers and a logit.

    Args:
      sigmoid: whether sigmoids follow the hidden layers, whose weights are then small.
    """

    def __init__(self, sigmoid: bool, rngs: nnx.Rngs):
        init = nnx.initializers.normal(0.1) if sigmoid else nnx.initializers.he_normal()
        features = (2, 24, 24, 24, 24, 24)
        self.layers = nnx.List(
            [nnx.Linear(i, o, kernel_init=init, rngs=rngs) for i, o in pairwise(features)]
        )
        self.logit = nnx.Linear(24, 1, rngs=rngs)
        self.sigmoid = sigmoid

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps points (N, 2) to logits (N,)."""
        for layer in self.layers:
            x = nnx.sigmoid(layer(x)) if self.sigmoid else nnx.relu(layer(x))
        return self.logit(x)[:, 0]


def deep_sigmoids(faulty: bool, seed: int) -> Trained:
    """Stacks five layers of sigmoids with small weights."""
    train, test = rings()
    model = Deep(faulty, nnx.Rngs(seed))
    batches = batches_of(train, size=50, steps=250, seed=seed)
    record = run_nnx(nnx_step(binary_cross_entropy), model, optax.sgd(0.1, momentum=0.9), batches)
    return Trained(record, binary_accuracy(model(test[0]), test[1]))


class TinyConvs(linen.Module):
    """Convolutions and dense layers.

    Attributes:
      std: of the kernels of the convolutions, or None for the usual.
    """

    std: float | None

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to logits (N, 10)."""
        usual = linen.initializers.he_normal()
        init = usual if self.std is None else linen.initializers.normal(self.std)
        for features in (8, 16):
            x = linen.relu(linen.Conv(features, (5, 5), strides=2, kernel_init=init)(x))
        x = linen.relu(linen.Dense(48, kernel_init=usual)(x.reshape(len(x), -1)))
        return linen.Dense(10)(x)


def tiny_convolutions(faulty: bool, seed: int) -> Trained:
    """Takes over a std of 1e-4 for the kernels of each convolution."""
    train, test = digits(step=2)
    tx = optax.sgd(0.1, momentum=0.9)
    state = linen_state(TinyConvs(1e-4 if faulty else None), train[0], tx, seed)
    batches = batches_of(train, size=50, steps=200, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


_ZERO, _VANISHING = "zero weights", "vanishing gradients"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "both factors of an adapter begin at zero",
        "https://github.com/circle-hit/SAPT/issues/11",
        _ZERO,
        both_factors_zero,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "all weights begin at zero, two classes",
        "https://community.deeplearning.ai/t/"
        "week-1-programming-assignment-initialization-exercise-1-initialize-parameters-zeros/121049",
        _ZERO,
        all_zero,
        "optax",
        0.9,
    ),
    ReportedFault(
        "hidden softmax layer begins at zero",
        "http://pullrequest.ru/11818227/neironnaya-set-odnim-skrytym-sloem-mozhet-byt-obuchena",
        _ZERO,
        softmax_of_zeros,
        "linen",
        0.8,
    ),
    ReportedFault(
        "weights of a thousandth in three layers",
        "https://techfeed.net/pt/473708/",
        _VANISHING,
        line_of_tiny_weights,
        "optax",
        0.6,
    ),
    ReportedFault(
        "five layers of sigmoids with small weights",
        "https://www.mohdvasim.com/blog/deep-learning/03-activations/01-vanishing-gradient",
        _VANISHING,
        deep_sigmoids,
        "nnx",
        0.9,
    ),
    ReportedFault(
        "convolutions with weights of 1e-4",
        "https://github.com/tensorflow/tensorflow/pull/2374",
        _VANISHING,
        tiny_convolutions,
        "linen",
        0.8,
    ),
)
