"""Reported faults: a softmax or sigmoid that is applied twice."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    Cnn,
    Linear,
    LinenUNet,
    UNet,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    in_dicts,
    mask_cross_entropy,
    predict,
    unchanged,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    binary_accuracy,
    digits,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx

# --- softmax applied twice -------------------------------------------------------------------


def _softmax_in_the_model(faulty: bool, seed: int) -> Trained:
    """The model ends with a softmax, and the cross entropy applies another."""
    task = digits()

    def train_step(model: Any, optimizer: Any, batch: dict[str, jax.Array]) -> Any:
        def loss_fn(model: Any) -> Any:
            return cross_entropy(model(batch["image"]), batch["label"])

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    model = Cnn(10, last=nnx.softmax if faulty else unchanged, rngs=nnx.Rngs(seed))
    batches = in_dicts(batches_of((task.x, task.y), size=50, steps=250, seed=seed))
    record = run_nnx(train_step, model, optax.adam(1e-3), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _softmax_of_each_pixel(faulty: bool, seed: int) -> Trained:
    """A network for segmentation ends with a softmax over the classes of each pixel."""
    task = strokes()
    net = LinenUNet(2, linen.softmax if faulty else unchanged)

    def loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy(logits, jax.nn.one_hot(masks, 2)).mean()

    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(2e-3),
        loss,
        (task.x, task.y),
        size=8,
        steps=200,
        seed=seed,
    )
    logits = np.asarray(net.apply(params, jnp.asarray(task.test_x)))
    return Trained(record, overlap(logits[..., 1] - logits[..., 0], task.test_y))


def _logistic_regression(faulty: bool, seed: int) -> Trained:
    """A logistic regression takes the log-softmax of a softmax; SGD."""
    task = digits()

    def apply(params: Any, x: jax.Array) -> jax.Array:
        logits = dense(params, x)
        return jax.nn.softmax(logits) if faulty else logits

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.mean(jax.nn.log_softmax(outputs)[jnp.arange(len(y)), y])

    record, params = fit_pure(
        apply,
        dense_params(seed, (784, 10)),
        optax.sgd(0.1),
        loss,
        (task.x, task.y),
        size=64,
        steps=300,
        seed=seed,
    )
    return Trained(record, accuracy(apply(params, jnp.asarray(task.test_x)), task.test_y))


def _sigmoid_of_ratings(faulty: bool, seed: int) -> Trained:
    """A recommender's sigmoid is followed by a binary cross entropy of logits."""
    rng = np.random.default_rng(SEED)
    pairs = rng.integers(60, size=(5000, 2)).astype(np.int32)
    taste, style = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    liked = (np.sum(taste[pairs[:, 0]] * style[pairs[:, 1]], 1) > 0.5).astype(np.int32)

    class Factors(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.users, self.items = nnx.Embed(60, 8, rngs=rngs), nnx.Embed(60, 8, rngs=rngs)
            self.mix, self.out = Linear(24, 32, rngs=rngs), Linear(32, 1, rngs=rngs)

        def __call__(self, pairs: jax.Array) -> jax.Array:
            user, item = self.users(pairs[:, 0]), self.items(pairs[:, 1])
            x = nnx.relu(self.mix(jnp.concatenate([user, item, user * item], -1)))
            score = self.out(x)[:, 0]
            return nnx.sigmoid(score) if faulty else score

    def loss(score: jax.Array, liked: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(score, liked.astype(jnp.float32)).mean()

    model = Factors(nnx.Rngs(seed))
    arrays = (pairs[:4500], liked[:4500])
    record = fit_nnx(model, optax.adam(1e-2), loss, arrays, size=128, steps=300, seed=seed)
    scores = predict(model, pairs[4500:])
    return Trained(record, binary_accuracy(scores - 0.5 * faulty, liked[4500:]))


def _sigmoid_of_each_pixel(faulty: bool, seed: int) -> Trained:
    """A network for segmentation ends with a sigmoid, and the loss applies another."""
    task = strokes()
    model = UNet(1, last=nnx.sigmoid if faulty else unchanged, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model,
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        mask_cross_entropy,
        (task.x, task.y),
        size=8,
        steps=200,
        seed=seed,
    )
    return Trained(record, overlap(predict(model, task.test_x) - 0.5 * faulty, task.test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "softmax in the model",
        "https://github.com/jaehong31/CGES/issues/1",
        "softmax applied twice",
        _softmax_in_the_model,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "softmax of each pixel",
        "https://github.com/NVIDIA/DeepLearningExamples/issues/468",
        "softmax applied twice",
        _softmax_of_each_pixel,
        "linen",
        0.6,
    ),
    ReportedFault(
        "log-softmax of a softmax",
        "https://github.com/Lightning-Universe/lightning-bolts/issues/654",
        "softmax applied twice",
        _logistic_regression,
        "optax",
        0.75,
    ),
    ReportedFault(
        "sigmoid of ratings",
        "https://github.com/yudi-mars/daisyRec/pull/15",
        "softmax applied twice",
        _sigmoid_of_ratings,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "sigmoid of each pixel",
        "https://github.com/avBuffer/UNet3plus_pth/issues/23",
        "softmax applied twice",
        _sigmoid_of_each_pixel,
        "nnx",
        0.6,
    ),
)
