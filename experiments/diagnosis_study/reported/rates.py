"""Reported faults of the learning rate: too high or too low for all layers, or for one layer."""

from collections.abc import Callable
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
    heat_maps,
    linen_state,
    linen_step,
    measurements,
    next_letters,
    nnx_step,
    optax_step,
    species,
    squared_error,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class LetterNet(linen.Module):
    """Embeds letters, and maps all of them together to logits."""

    @linen.compact
    def __call__(self, letters: jax.Array) -> jax.Array:
        """Maps letters (N, 3) to logits (N, 20)."""
        x = linen.Embed(20, 12)(letters).reshape(len(letters), -1)
        return linen.Dense(20)(linen.tanh(linen.Dense(96)(x)))


def rate_of_sgd_with_adam(faulty: bool, seed: int) -> Trained:
    """Changes SGD for Adam, and leaves its rate of 1."""
    train, test = next_letters()
    state = linen_state(LetterNet(), train[0], optax.adam(1.0 if faulty else 1e-2), seed)
    batches = batches_of(train, size=64, steps=250, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


class DigitNet(nnx.Module):
    """Two strided convolutions and a linear layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 14, 14, 1) to logits (N, 10)."""
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return self.head(x.reshape(len(x), -1))


def rate_of_adadelta_with_adam(faulty: bool, seed: int) -> Trained:
    """Changes Adadelta for Adam, and leaves its rate of 1."""
    train, test = digits(step=2)
    model = DigitNet(nnx.Rngs(seed))
    tx = optax.adam(1.0) if faulty else optax.adadelta(1.0)
    batches = batches_of(train, size=64, steps=250, seed=seed)
    record = run_nnx(nnx_step(cross_entropy), model, tx, batches)
    return Trained(record, accuracy(model(test[0]), test[1]))


def loss_to_a_trillion(faulty: bool, seed: int) -> Trained:
    """Regresses with SGD at ten times the rate that converges."""
    tx = optax.sgd(0.5 if faulty else 0.05)
    train, test = measurements()
    params = dense_params((8, 64, 64, 1), seed)
    step = optax_step(dense, squared_error, tx)
    batches = batches_of(train, size=40, steps=200, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, explained(dense(params, jnp.asarray(test[0])), test[1]))


def divided_at_every_step(faulty: bool, seed: int) -> Trained:
    """Divides the rate by ten at every step instead of every tenth epoch."""
    train, test = digits(step=2)
    model = DigitNet(nnx.Rngs(seed))
    rate = optax.exponential_decay(1e-2, 1 if faulty else 800, 0.1, staircase=True)
    batches = batches_of(train, size=50, steps=200, seed=seed)
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
    record = run_nnx(nnx_step(cross_entropy), model, tx, batches)
    return Trained(record, accuracy(model(test[0]), test[1]))


class MaskNet(linen.Module):
    """Convolutions, and a logit for each pixel."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to logits of the same shape."""
        for features in (12, 12):
            x = linen.relu(linen.Conv(features, (3, 3))(x))
        return linen.Conv(1, (3, 3))(x)


def scheduler_in_the_batch_loop(faulty: bool, seed: int) -> Trained:
    """Decays the rate for each batch by what is meant for an epoch."""
    epoch = 1 if faulty else 62
    rate = optax.exponential_decay(5e-3, epoch, 0.7, staircase=True)
    train, test = strokes()
    state = linen_state(MaskNet(), train[0], optax.adam(rate), seed)
    batches = batches_of(train, size=32, steps=150, seed=seed)
    record, (state,) = run_pure(linen_step(binary_cross_entropy), (state,), batches)
    output = state.apply_fn({"params": state.params}, test[0])
    return Trained(record, binary_accuracy(output, test[1]))


class Regressor(nnx.Module):
    """Two hidden layers and an output."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(8, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.out = nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, 8) to outputs (N, 1)."""
        return self.out(nnx.silu(self.second(nnx.silu(self.first(x)))))


def warm_up_of_epochs(faulty: bool, seed: int) -> Trained:
    """Counts epochs where the warm-up is meant to last as many steps, so that it never ends."""
    train, test = measurements()
    model = Regressor(nnx.Rngs(seed))
    steps_of_epoch, warm_up = 40, 60

    def rate(count: jax.Array) -> jax.Array:
        done = count / steps_of_epoch if faulty else count
        return 5e-3 * jnp.minimum((1 + done) / (100 * warm_up if faulty else warm_up), 1.0)

    batches = batches_of(train, size=40, steps=240, seed=seed)
    record = run_nnx(nnx_step(squared_error), model, optax.adam(rate), batches)
    return Trained(record, explained(model(test[0]), test[1]))


def gradients_pass_the_mask(faulty: bool, seed: int) -> Trained:
    """Masks the optimiser of the layers to be left as they are, whose update is the gradient."""
    params = dense_params((10, 48, 48, 4), seed)
    mask = {name: not faulty or name != "dense1" for name in params}
    tx = optax.masked(optax.adam(3e-3), mask)
    train, test = species()
    step = optax_step(dense, cross_entropy, tx)
    batches = batches_of(train, size=48, steps=250, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, accuracy(dense(params, jnp.asarray(test[0])), test[1]))


class PoseNet(nnx.Module):
    """Convolutions, two stages and a heat map."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(1, 8, (5, 5), rngs=rngs)
        self.stage = nnx.Conv(8, 8, (5, 5), rngs=rngs)
        self.heat = nnx.Conv(8, 1, (5, 5), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to heat maps of the same shape."""
        return self.heat(nnx.relu(self.stage(nnx.relu(self.stem(x)))))


def rates_by_layer(layer: str, factor: float) -> optax.GradientTransformation:
    """Returns Adam, with another rate for one layer, whose path has this name."""

    def group(params: Any) -> Any:
        paths, tree = jax.tree_util.tree_flatten_with_path(params)
        named = ["other" if layer in jax.tree_util.keystr(path) else "all" for path, _ in paths]
        return jax.tree.unflatten(tree, named)

    return optax.multi_transform(
        {"all": optax.adam(2e-3), "other": optax.adam(2e-3 * factor)}, group
    )


def rates_of_stages(faulty: bool, seed: int) -> Trained:
    """Multiplies the rate of a stage, whose factors of several files multiply each other."""
    train, test = heat_maps()
    model = PoseNet(nnx.Rngs(seed))
    tx = rates_by_layer("stage", 200.0) if faulty else optax.adam(2e-3)
    batches = batches_of(train, size=32, steps=150, seed=seed)
    record = run_nnx(nnx_step(squared_error), model, tx, batches)
    return Trained(record, explained(model(test[0]), test[1]))


class Classifier(linen.Module):
    """Hidden layers, of which one is between others of equal width."""

    nonlinearity: Callable[[jax.Array], jax.Array] = linen.gelu

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to logits (N, 4)."""
        for name in ("enter", "router", "leave"):
            x = self.nonlinearity(linen.Dense(48, name=name)(x))
        return linen.Dense(4, name="head")(x)


def multiplier_overwritten(faulty: bool, seed: int) -> Trained:
    """Overwrites the multiplier of a layer's rate with that of another use."""
    tx = rates_by_layer("router", 500.0 if faulty else 1.0)
    train, test = species()
    state = linen_state(Classifier(), train[0], tx, seed)
    batches = batches_of(train, size=64, steps=250, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


_HIGH, _LOW, _ONE = "learning rate too high", "learning rate too low", "update too large"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "rate of SGD with Adam, letters",
        _GITHUB + "OpenNMT/OpenNMT-py/issues/805",
        _HIGH,
        rate_of_sgd_with_adam,
        "linen",
        0.5,
    ),
    ReportedFault(
        "rate of Adadelta with Adam",
        _GITHUB + "skorch-dev/skorch/issues/468",
        _HIGH,
        rate_of_adadelta_with_adam,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "loss rises to a trillion",
        "https://datascience.stackexchange.com/questions/15962/"
        "why-is-learning-rate-causing-my-neural-networks-weights-to-skyrocket",
        _HIGH,
        loss_to_a_trillion,
        "optax",
        0.6,
    ),
    ReportedFault(
        "rate divided by ten at every step",
        _GITHUB + "matteo-dunnhofer/imagenet/issues/10",
        _LOW,
        divided_at_every_step,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "scheduler in the loop over batches",
        _GITHUB + "ivadomed/ivadomed/pull/55",
        _LOW,
        scheduler_in_the_batch_loop,
        "linen",
        0.92,
    ),
    ReportedFault(
        "warm-up that counts epochs",
        _GITHUB + "galilai-group/stable-worldmodel/issues/280",
        _LOW,
        warm_up_of_epochs,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "masked layers get their gradient as update",
        _GITHUB + "google-deepmind/optax/issues/159",
        _ONE,
        gradients_pass_the_mask,
        "optax",
        0.75,
    ),
    ReportedFault(
        "rate of one stage multiplied, heat maps",
        _GITHUB + "last-one/Pytorch_Realtime_Multi-Person_Pose_Estimation/issues/40",
        _ONE,
        rates_of_stages,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "multiplier of one layer's rate overwritten",
        _GITHUB + "NVIDIA/Megatron-LM/pull/882",
        _ONE,
        multiplier_overwritten,
        "linen",
        0.75,
    ),
)
