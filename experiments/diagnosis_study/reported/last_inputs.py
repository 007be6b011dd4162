"""Reported faults of the inputs and the labels, of the last collection."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenDense,
    Mlp,
    UNet,
    cross_entropy,
    fit_linen,
    fit_nnx,
    fit_pure,
    mask_cross_entropy,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    digits,
    explained,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.evaluation_tasks import tagged_words
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained


def _forgotten_division(faulty: bool, seed: int) -> Trained:
    """A convolutional network gets pixels of 0 to 255, and ends with one answer for all images."""
    task = digits()
    scale = np.float32(255 if faulty else 1)

    def classify(x: jax.Array) -> jax.Array:
        for channels in (8, 16):
            x = jax.nn.relu(hk.Conv2D(channels, 3, stride=2)(x))
        x = jax.nn.relu(hk.Linear(32)(hk.Flatten()(x)))
        return hk.Linear(10)(x)

    net = hk.without_apply_rng(hk.transform(classify))
    params = net.init(jax.random.key(seed), jnp.asarray(task.x[:2]))
    arrays, tx = (scale * task.x, task.y), optax.sgd(0.05, momentum=0.9)
    record, params = fit_pure(
        net.apply, params, tx, cross_entropy, arrays, size=64, steps=150, seed=seed
    )
    logits = jax.jit(net.apply)(params, jnp.asarray(scale * task.test_x))
    return Trained(record, accuracy(logits, task.test_y))


def _feature_whose_maximum_is_zero(faulty: bool, seed: int) -> Trained:
    """An autoencoder of counts, each divided by its maximum, which is zero for one of them."""
    rng = np.random.default_rng(SEED)
    hidden = rng.normal(size=(1800, 4)) @ rng.normal(size=(4, 18))
    counts = np.round(20 / (1 + np.exp(-hidden)))
    counts[:, 11] = 0
    most = counts.max(0)
    with np.errstate(invalid="ignore"):
        x = (counts / (most if faulty else np.maximum(most, 1))).astype(np.float32)
    model = Mlp((18, 32, 6, 32, 18), activation=nnx.tanh, rngs=nnx.Rngs(seed))
    arrays = (x[:1500], x[:1500])
    record = fit_nnx(model, optax.adam(5e-3), squared_error, arrays, size=50, steps=200, seed=seed)
    kept = np.arange(18) != 11
    return Trained(record, explained(predict(model, x[1500:])[:, kept], x[1500:, kept]))


class Sensor(nnx.Module):
    """A recurrent network, and the output of its last state."""

    def __init__(self, rngs: nnx.Rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(1, 24, rngs=rngs))
        self.out = nnx.Linear(24, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps windows (N, T, 1) to outputs (N, 1)."""
        return self.out(self.rnn(x)[:, -1])


def _window_ends_a_step_early(faulty: bool, seed: int) -> Trained:
    """The windows of a generator end one step before the step of their target."""
    series = np.random.default_rng(SEED).normal(size=2208).astype(np.float32)
    state = np.sin(2 * series)
    ends = np.arange(8, 2208)
    steps = np.arange(-7, 1) - (1 if faulty else 0)
    x, y = series[ends[:, None] + steps, None], state[ends]
    model = Sensor(nnx.Rngs(seed))
    arrays = (x[:1800], y[:1800])
    record = fit_nnx(model, optax.adam(1e-2), squared_error, arrays, size=50, steps=200, seed=seed)
    return Trained(record, explained(predict(model, x[1800:]), y[1800:]))


class CosineNet(linen.Module):
    """Directions of images, and their scaled cosines with a direction of each class."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        x = linen.relu(LinenDense(64)(x.reshape(len(x), -1)))
        x = LinenDense(16)(x)
        classes = self.param("classes", linen.initializers.normal(1.0), (16, 10))
        x = x / (jnp.linalg.norm(x, axis=1, keepdims=True) + 1e-6)
        return 15 * x @ (classes / jnp.linalg.norm(classes, axis=0))


def _directions_without_shuffling(faulty: bool, seed: int) -> Trained:
    """A list of images, one person after the other, is read in order; here digits."""
    task = digits()
    order = np.argsort(task.y, kind="stable")
    record, net = fit_linen(
        CosineNet(),
        optax.adam(3e-3),
        cross_entropy,
        (task.x[order], task.y[order]),
        size=50,
        steps=200,
        seed=seed,
        shuffle=not faulty,
    )
    return Trained(record, accuracy(net(task.test_x), task.test_y))


def _masks_divided_by_255(faulty: bool, seed: int) -> Trained:
    """Masks of 0 and 1 are scaled like images, and become integers again: all are 0."""
    task = strokes()
    masks = (task.y / 255).astype(np.int32) if faulty else task.y
    model = UNet(1, rngs=nnx.Rngs(seed))
    arrays = (task.x, masks)
    record = fit_nnx(
        model, optax.adam(3e-3), mask_cross_entropy, arrays, size=16, steps=150, seed=seed
    )
    return Trained(record, overlap(predict(model, task.test_x), task.test_y))


class PaddedTagger(linen.Module):
    """Embeds words and their neighbours, and maps each to two logits."""

    @linen.compact
    def __call__(self, words: jax.Array) -> jax.Array:
        """Maps words (N, T) to logits (N, T, 2)."""
        x = linen.Embed(31, 16)(words)
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        x = linen.relu(LinenDense(48)(jnp.concatenate([x, before], -1)))
        return LinenDense(2)(x)


def _ignored_label_that_counts(faulty: bool, seed: int) -> Trained:
    """Padding has the label -100, which the loss should ignore, and does not."""
    train, test = tagged_words()
    ends = np.random.default_rng(SEED).integers(4, 9, size=len(train[0]))
    padding = np.arange(8) >= ends[:, None]
    words = np.where(padding, 30, train[0]).astype(np.int32)
    tags = np.where(padding, -100, train[1]).astype(np.int32)

    def loss(logits: jax.Array, tags: jax.Array) -> jax.Array:
        if faulty:
            return cross_entropy(logits, tags)
        kept = tags >= 0
        each: Any = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(tags, 0))
        return jnp.sum(each * kept) / jnp.sum(kept)

    record, net = fit_linen(
        PaddedTagger(), optax.adam(5e-3), loss, (words, tags), size=50, steps=200, seed=seed
    )
    return Trained(record, accuracy(net(test[0]), test[1]))


_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "one answer for images of 0 to 255",
        "https://m.imooc.com/wenda/detail/614880",
        "inputs not normalised",
        _forgotten_division,
        "haiku",
        0.8,
    ),
    ReportedFault(
        "autoencoder of a feature whose maximum is zero",
        _GITHUB + "evandowning/deepreflect/issues/11",
        "inputs not finite",
        _feature_whose_maximum_is_zero,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "windows that end a step early",
        _GITHUB + "keras-team/keras-preprocessing/issues/66",
        "inputs and labels do not match",
        _window_ends_a_step_early,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "cosine logits without shuffling",
        _GITHUB + "happynear/NormFace/issues/4",
        "batches of one class",
        _directions_without_shuffling,
        "linen",
        0.8,
    ),
    ReportedFault(
        "masks scaled like images",
        _GITHUB + "LeeJunHyun/Image_Segmentation/issues/3",
        "labels constant",
        _masks_divided_by_255,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "ignored label that counts",
        _GITHUB + "PaddlePaddle/Paddle/issues/17961",
        "labels out of range",
        _ignored_label_that_counts,
        "linen",
        0.85,
    ),
)
