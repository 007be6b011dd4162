"""Reported faults: losses summed over the batch, and losses independent of the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    Cnn,
    LinenDense,
    LinenUNet,
    Mlp,
    UNet,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
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
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx

# --- loss summed over the batch --------------------------------------------------------------


def _softmax_regression(faulty: bool, seed: int) -> Trained:
    """A softmax regression from zero, with a summed cross entropy and a batch of 256."""
    task = digits()
    net = LinenDense(10, kernel_init=linen.initializers.zeros)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return net.apply(params, x.reshape(len(x), -1))

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        picked = jnp.take_along_axis(jnp.log(linen.softmax(logits)), y[:, None], 1)
        return -picked.sum() if faulty else -picked.mean()

    record, params = fit_pure(
        apply,
        net.init(jax.random.key(seed), task.x[:1].reshape(1, -1)),
        optax.sgd(0.01),
        loss,
        (task.x, task.y),
        size=256,
        steps=200,
        seed=seed,
    )
    return Trained(record, accuracy(apply(params, task.test_x), task.test_y))


def _larger_batch(faulty: bool, seed: int) -> Trained:
    """The loss of an introduction is summed, and fails with a larger batch."""
    task = digits()

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        terms = jax.nn.one_hot(y, 10) * jax.nn.log_softmax(logits)
        return -jnp.sum(terms) if faulty else -jnp.sum(terms) / len(y)

    record, params = fit_pure(
        dense,
        dense_params(seed, (784, 128, 10)),
        optax.sgd(0.05),
        loss,
        (task.x, task.y),
        size=250,
        steps=200,
        seed=seed,
    )
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


def _gradients_not_averaged(faulty: bool, seed: int) -> Trained:
    """The gradients of the images of a batch are added and not averaged; SGD with momentum."""
    task = digits()

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(model: Any) -> Any:
            losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
            return (losses.sum() if faulty else losses.mean()), losses.mean()

        (_, mean), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        optimizer.update(model, grads)
        return {"loss": mean}

    model = Cnn(10, channels=(1, 8, 16, 32), rngs=nnx.Rngs(seed))
    batches = batches_of((task.x, task.y), size=64, steps=200, seed=seed)
    record = run_nnx(train_step, model, optax.sgd(0.02, momentum=0.9), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _squares_of_all_pixels(faulty: bool, seed: int) -> Trained:
    """The squared errors of all pixels of a batch are added in a network that removes noise."""
    task = digits()
    rng = np.random.default_rng(seed)
    small, test = task.x[:, ::2, ::2], task.test_x[:300, ::2, ::2]
    noisy, test_noisy = (
        (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32) for x in (small, test)
    )

    def loss(outputs: jax.Array, clean: jax.Array) -> jax.Array:
        errors = (outputs - clean) ** 2
        return errors.sum() if faulty else errors.mean()

    model = UNet(1, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model, optax.sgd(0.1, momentum=0.9), loss, (noisy, small), size=8, steps=200, seed=seed
    )
    restored = predict(model, test_noisy)
    return Trained(record, explained(restored.ravel(), test.ravel()))


# --- loss independent of the parameters ------------------------------------------------------


def _greatest_output(faulty: bool, seed: int) -> Trained:
    """The loss compares the number of the greatest output with the label."""
    task = chosen_digits(0, 1)

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        if faulty:
            return jnp.mean((jnp.argmax(logits, -1).astype(jnp.float32) - y) ** 2)
        return jnp.mean((jax.nn.softmax(logits)[:, 1] - y) ** 2)

    record, params = fit_pure(
        dense,
        dense_params(seed, (784, 64, 64, 2)),
        optax.adam(1e-3),
        loss,
        (task.x, task.y),
        size=32,
        steps=150,
        seed=seed,
    )
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


def _softmax_of_one_output(faulty: bool, seed: int) -> Trained:
    """A softmax is taken over a single output, which makes it 1 for every example."""
    task = houses()
    y, test_y = ((y > 0).astype(np.int32) for y in (task.y, task.test_y))

    def loss(p: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((p[:, 0] - y) ** 2)

    last = nnx.softmax if faulty else nnx.sigmoid
    model = Mlp((8, 64, 64, 1), activation=nnx.tanh, last=last, rngs=nnx.Rngs(seed))
    tx = optax.sgd(0.1, momentum=0.9, nesterov=True)
    record = fit_nnx(model, tx, loss, (task.x, y), size=32, steps=250, seed=seed)
    return Trained(record, binary_accuracy(predict(model, task.test_x) - 0.5, test_y))


def _dice_of_classes(faulty: bool, seed: int) -> Trained:
    """Dice's loss is taken of the class of each pixel in place of its probability."""
    task, net = strokes(), LinenUNet(2)

    def loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
        p = logits.argmax(-1).astype(jnp.float32) if faulty else linen.softmax(logits)[..., 1]
        return 1 - (2 * jnp.sum(p * masks) + 1) / (jnp.sum(p) + jnp.sum(masks) + 1)

    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(3e-3),
        loss,
        (task.x, task.y),
        size=8,
        steps=200,
        seed=seed,
    )
    logits = np.asarray(net.apply(params, jnp.asarray(task.test_x)))
    return Trained(record, overlap(logits[..., 1] - logits[..., 0], task.test_y))


def _rounded_probabilities(faulty: bool, seed: int) -> Trained:
    """The probabilities are rounded to 0 or 1 before the loss; several labels per image."""
    task = digits()
    parts = np.array([[0, 6, 8, 9], [0, 2, 4, 6], [1, 3, 5, 7]])  # has a loop, is even, is odd
    y, test_y = (
        np.stack([np.isin(labels, part) for part in parts], 1).astype(np.int32)
        for labels in (task.y, task.test_y)
    )

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        p = nnx.sigmoid(logits)
        return jnp.mean(jnp.abs((jnp.round(p) if faulty else p) - y) ** 2)

    model = Cnn(3, rngs=nnx.Rngs(seed))
    arrays = (task.x, y)
    record = fit_nnx(model, optax.adam(3e-3), loss, arrays, size=64, steps=200, seed=seed)
    return Trained(record, binary_accuracy(predict(model, task.test_x), test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "softmax regression with a summed loss",
        "https://stackoverflow.com/questions/33641799",
        "loss summed over the batch",
        _softmax_regression,
        "linen",
        0.7,
    ),
    ReportedFault(
        "summed loss with a larger batch",
        "https://github.com/jax-ml/jax/pull/3113",
        "loss summed over the batch",
        _larger_batch,
        "optax",
        0.8,
    ),
    ReportedFault(
        "gradients not averaged",
        "https://github.com/apache/singa/pull/333",
        "loss summed over the batch",
        _gradients_not_averaged,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "squares of all pixels",
        "https://github.com/utcsilab/deepinpy/issues/13",
        "loss summed over the batch",
        _squares_of_all_pixels,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "number of the greatest output",
        "https://github.com/google-deepmind/dm-haiku/issues/442",
        "loss independent of the parameters",
        _greatest_output,
        "optax",
        0.9,
    ),
    ReportedFault(
        "softmax of one output",
        "https://github.com/keras-team/keras/issues/126",
        "loss independent of the parameters",
        _softmax_of_one_output,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "Dice of classes",
        "https://github.com/tensorlayer/TensorLayer/issues/891",
        "loss independent of the parameters",
        _dice_of_classes,
        "linen",
        0.6,
    ),
    ReportedFault(
        "rounded probabilities",
        "https://www.developerload.com/differentiable-round-function-in-tensorflow",
        "loss independent of the parameters",
        _rounded_probabilities,
        "nnx",
        0.85,
    ),
)
