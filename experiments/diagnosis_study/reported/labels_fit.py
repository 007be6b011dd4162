"""Reported faults: labels that do not fit the loss, and targets that are not scaled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenCnn,
    LinenMlp,
    Mlp,
    UNet,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    mask_cross_entropy,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    binary_accuracy,
    chosen_digits,
    digits,
    explained,
    houses,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained

# --- labels do not fit the loss --------------------------------------------------------------


def _one_output_for_ten_classes(faulty: bool, seed: int) -> Trained:
    """The labels 0 to 9 are those of a binary cross entropy with one output."""
    task = digits()

    def binary(logits: jax.Array, y: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], y.astype(jnp.float32)).mean()

    model = Mlp((784, 64, 1 if faulty else 10), rngs=nnx.Rngs(seed))
    loss = binary if faulty else cross_entropy
    arrays = (task.x, task.y)
    record = fit_nnx(model, optax.adam(1e-3), loss, arrays, size=32, steps=250, seed=seed)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _masks_of_255(faulty: bool, seed: int) -> Trained:
    """Masks of 0 and 255 are the targets of a binary cross entropy of each pixel."""
    task = strokes()
    masks = task.y * np.float32(255 if faulty else 1)
    model = UNet(1, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model,
        optax.rmsprop(1e-3),
        mask_cross_entropy,
        (task.x, masks),
        size=8,
        steps=200,
        seed=seed,
    )
    return Trained(record, overlap(predict(model, task.test_x), task.test_y))


def _hinge_of_zero_and_one(faulty: bool, seed: int) -> Trained:
    """A hinge loss for labels -1 and 1 gets 0 and 1: examples of class 0 have no gradient."""
    task = chosen_digits(3, 8)
    labels = task.y if faulty else 2 * task.y - 1

    def hinge(outputs: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.maximum(1 - y * outputs[:, 0], 0).mean()

    record, params = fit_pure(
        dense,
        dense_params(seed, (784, 32, 1)),
        optax.adam(2e-3),
        hinge,
        (task.x, labels),
        size=32,
        steps=200,
        seed=seed,
    )
    return Trained(record, binary_accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


def _binary_loss_of_prices(faulty: bool, seed: int) -> Trained:
    """Prices are predicted with the loss of a tutorial for two classes."""
    task = houses()
    net = LinenMlp((64, 32, 1))

    def binary(outputs: jax.Array, y: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(outputs[:, 0], y).mean()

    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(5e-3),
        binary if faulty else squared_error,
        (task.x, 2 + task.y),
        size=32,
        steps=250,
        seed=seed,
    )
    return Trained(record, explained(net.apply(params, task.test_x), 2 + task.test_y))


# --- target not scaled -----------------------------------------------------------------------


def _prices_in_dollars(faulty: bool, seed: int) -> Trained:
    """House prices of about 250,000 are the targets of a network that starts near 0."""
    task = houses()

    def price(y: Any) -> Any:
        return np.float32(250_000) + np.float32(100_000) * y if faulty else y

    model = Mlp((8, 64, 64, 1), rngs=nnx.Rngs(seed))
    arrays = (task.x, price(task.y))
    record = fit_nnx(model, optax.adam(2e-3), squared_error, arrays, size=32, steps=250, seed=seed)
    return Trained(record, explained(predict(model, task.test_x), price(task.test_y)))


def _some_outputs_in_thousands(faulty: bool, seed: int) -> Trained:
    """Of four outputs for an image, one is in the ten thousands and the others are about 1."""
    task = digits()

    def measures(images: Any) -> Any:
        ink = images[..., 0]
        total = ink.sum((1, 2))
        positions = np.linspace(-1, 1, 28)
        across, down = (ink * positions).sum((1, 2)), (ink * positions[:, None]).sum((1, 2))
        spread = (ink * positions**2).sum((1, 2))
        return np.stack([255 * total, across / total, down / total, spread / total], 1)

    y, test_y = measures(task.x), measures(task.test_x)
    if not faulty:
        test_y = (test_y - y.mean(0)) / y.std(0)
        y = (y - y.mean(0)) / y.std(0)
    net = LinenCnn(4)
    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(3e-3),
        squared_error,
        (task.x, y.astype(np.float32)),
        size=64,
        steps=200,
        seed=seed,
    )
    return Trained(record, explained(net.apply(params, task.test_x), test_y))


def _fourth_power(faulty: bool, seed: int) -> Trained:
    """The fourth power of numbers up to 100 is fitted as it is, up to 1e8."""
    rng = np.random.default_rng(SEED)
    x = rng.uniform(-1, 1, (1200, 1)).astype(np.float32)
    powers = (100 * x[:, 0]) ** 4
    y = powers if faulty else (powers - powers.mean()) / powers.std()

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x, jax.nn.elu)

    record, params = fit_pure(
        apply,
        dense_params(seed, (1, 64, 32, 1)),
        optax.adam(1e-2),
        squared_error,
        (x[:1000], y[:1000]),
        size=100,
        steps=300,
        seed=seed,
    )
    return Trained(record, explained(apply(params, jnp.asarray(x[1000:])), y[1000:]))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "one output for ten classes",
        "https://datascience.stackexchange.com/questions/38604",
        "labels do not fit the loss",
        _one_output_for_ten_classes,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "masks of 255 in a binary loss",
        "https://github.com/milesial/Pytorch-UNet/issues/78",
        "labels do not fit the loss",
        _masks_of_255,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "hinge loss of 0 and 1",
        "https://github.com/deepchem/deepchem/issues/5017",
        "labels do not fit the loss",
        _hinge_of_zero_and_one,
        "optax",
        0.85,
    ),
    ReportedFault(
        "binary loss of prices",
        "https://openillumi.com/en/en-keras-tf-fix-huge-negative-loss-regression",
        "labels do not fit the loss",
        _binary_loss_of_prices,
        "linen",
        0.8,
    ),
    ReportedFault(
        "prices in dollars",
        "https://stats.stackexchange.com/questions/409000/"
        "should-we-normalize-target-data-as-well-as-input-data",
        "target not scaled",
        _prices_in_dollars,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "one output in ten thousands",
        "https://discuss.pytorch.org/t/"
        "how-to-deal-with-the-labels-having-drastically-different-values/116598",
        "target not scaled",
        _some_outputs_in_thousands,
        "linen",
        0.7,
    ),
    ReportedFault(
        "fourth power",
        "https://pythoner.space/questions/"
        "how-come-my-keras-model-can-predict-yx3-accurately-but-struggles-with-yx4",
        "target not scaled",
        _fourth_power,
        "optax",
        0.8,
    ),
)
