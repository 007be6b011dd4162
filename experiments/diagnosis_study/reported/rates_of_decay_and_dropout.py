"""Reported faults of regularisation: weight decay that is too strong, and too much dropout."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState

from experiments.diagnosis_study.reported.evaluation_tasks import (
    accuracy,
    centres,
    cross_entropy,
    dense,
    dense_params,
    digits,
    explained,
    heat_maps,
    linen_state,
    linen_step,
    nnx_step,
    optax_step,
    species,
    squared_error,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class SpotNet(nnx.Module):
    """Convolutions and two outputs, with dropout after each layer but the last.

    Args:
      rate: of the units that are dropped.
    """

    def __init__(self, rate: float, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(16 * 9, 32, rngs=rngs)
        self.out = nnx.Linear(32, 2, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 12, 12, 1) to places (N, 2)."""
        for conv in (self.conv1, self.conv2):
            x = self.drop(nnx.relu(conv(x)))
        x = self.drop(nnx.relu(self.dense(x.reshape(len(x), -1))))
        return self.out(x)


def decay_of_a_half(faulty: bool, seed: int) -> Trained:
    """Predicts coordinates with SGD and a weight decay of a half, such that all are the same."""
    train, test = ((x, y / 4 + 0.5) for x, y in centres())  # about 0 to 1
    model = SpotNet(0.0, nnx.Rngs(seed))
    decay = optax.add_decayed_weights(0.5 if faulty else 5e-4)
    batches = batches_of(train, size=32, steps=250, seed=seed)
    tx = optax.chain(decay, optax.sgd(0.03, momentum=0.9))
    record = run_nnx(nnx_step(squared_error), model, tx, batches)
    return Trained(record, explained(model(test[0]), test[1]))


class DepthNet(linen.Module):
    """Convolutions down and up again."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to maps of the same shape."""
        x = linen.relu(linen.Conv(12, (3, 3), strides=2)(x))
        x = linen.relu(linen.Conv(16, (3, 3), strides=2)(x))
        x = linen.relu(linen.ConvTranspose(12, (3, 3), strides=(2, 2))(x))
        return linen.ConvTranspose(1, (3, 3), strides=(2, 2))(x)


def decay_before_adam(faulty: bool, seed: int) -> Trained:
    """Adds the decay to the gradient, before Adam, where it outweighs the gradient."""
    decay = optax.add_decayed_weights(0.3 if faulty else 5e-5)
    train, test = ((x, y / 4 + 0.2) for x, y in heat_maps())  # 0 to 1
    state = linen_state(DepthNet(), train[0], optax.chain(decay, optax.adam(3e-3)), seed)
    batches = batches_of(train, size=32, steps=250, seed=seed)
    record, (state,) = run_pure(linen_step(squared_error), (state,), batches)
    return Trained(record, explained(state.apply_fn({"params": state.params}, test[0]), test[1]))


def decay_of_thirty(faulty: bool, seed: int) -> Trained:
    """Chooses a decay of 30, for a decay that the optimiser multiplies by the rate."""
    tx = optax.adamw(3e-3, weight_decay=30.0 if faulty else 1e-3)
    train, test = species()
    params = dense_params((10, 64, 64, 4), seed)
    step = optax_step(dense, cross_entropy, tx)
    batches = batches_of(train, size=64, steps=200, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, accuracy(dense(params, jnp.asarray(test[0])), test[1]))


class FaceNet(nnx.Module):
    """Convolutions, an embedding and a head, with dropout before both.

    Args:
      rate: of the units that are dropped.
    """

    def __init__(self, rate: float, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.embed = nnx.Linear(256, 48, rngs=rngs)
        self.head = nnx.Linear(48, 10, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 14, 14, 1) to logits (N, 10)."""
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x)))).reshape(len(x), -1)
        return self.head(self.drop(nnx.relu(self.embed(self.drop(x)))))


def nine_of_ten_dropped(faulty: bool, seed: int) -> Trained:
    """Drops nine of ten features and of ten dimensions of the embedding."""
    train, test = digits(step=2)
    model = FaceNet(0.9 if faulty else 0.1, nnx.Rngs(seed))
    batches = batches_of(train, size=50, steps=200, seed=seed)
    record = run_nnx(nnx_step(cross_entropy), model, optax.adam(2e-3), batches)
    model.eval()
    return Trained(record, accuracy(model(test[0]), test[1]))


class DropoutMLP(linen.Module):
    """Four hidden layers, with dropout after each.

    Attributes:
      rate: of the units that are dropped.
    """

    rate: float

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps rows (N, D) to logits (N, 10)."""
        for features in (100, 64, 48, 48):
            x = linen.relu(linen.Dense(features)(x))
            x = linen.Dropout(self.rate, deterministic=not train)(x)
        return linen.Dense(10)(x)


def four_layers_of_dropout(faulty: bool, seed: int) -> Trained:
    """Drops seven of ten units in each of four narrow layers."""

    def step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_fn(params: Any) -> jax.Array:
            logits = state.apply_fn({"params": params}, x, train=True, rngs={"dropout": key})
            return cross_entropy(logits, y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    train, test = digits(flat=True, step=2)
    network = DropoutMLP(0.7 if faulty else 0.05)
    state = linen_state(network, train[0], optax.sgd(0.1, momentum=0.9), seed)
    batches = batches_of(train, size=50, steps=240, seed=seed)
    record, (state,) = run_pure(step, (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


def dropout_in_a_small_net(faulty: bool, seed: int) -> Trained:
    """Drops most units after each layer of a small network for regression."""
    train, test = centres()
    model = SpotNet(0.8 if faulty else 0.05, nnx.Rngs(seed))
    batches = batches_of(train, size=32, steps=250, seed=seed)
    record = run_nnx(nnx_step(squared_error), model, optax.adam(3e-3), batches)
    model.eval()
    return Trained(record, explained(model(test[0]), test[1]))


_DECAY, _DROPOUT = "weight decay too strong", "dropout too strong"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "weight decay of 0.5, coordinates",
        "https://github.com/BVLC/caffe/issues/1396",
        _DECAY,
        decay_of_a_half,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "weight decay before Adam, depth",
        "https://github.com/tinghuiz/SfMLearner/issues/34",
        _DECAY,
        decay_before_adam,
        "linen",
        0.6,
    ),
    ReportedFault(
        "weight decay of 30 after Adam",
        "https://github.com/tflearn/tflearn/issues/772",
        _DECAY,
        decay_of_thirty,
        "optax",
        0.8,
    ),
    ReportedFault(
        "dropout of 0.9 around the embedding",
        "https://github.com/deepinsight/insightface/issues/2434",
        _DROPOUT,
        nine_of_ten_dropped,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "dropout in four hidden layers",
        "https://github.com/mdenil/dropout/issues/13",
        _DROPOUT,
        four_layers_of_dropout,
        "linen",
        0.8,
    ),
    ReportedFault(
        "dropout after each layer of a small network",
        "https://github.com/vlfeat/matconvnet/issues/648",
        _DROPOUT,
        dropout_in_a_small_net,
        "nnx",
        0.6,
    ),
)
