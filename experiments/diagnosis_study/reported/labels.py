"""Reported faults: labels that are constant or out of range."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState

from experiments.diagnosis_study.reported.data_networks import (
    Cnn,
    Conv,
    Linear,
    LinenCnn,
    LinenMlp,
    UNet,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    mask_cross_entropy,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
    accuracy,
    binary_accuracy,
    chosen_digits,
    digits,
    houses,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure

# --- labels constant -------------------------------------------------------------------------


def _labels_divided(faulty: bool, seed: int) -> Trained:
    """The labels are divided by 255 like the pixels, and cast to whole numbers by the loss."""
    task = digits()
    y = task.y / np.float32(255 if faulty else 1)

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            return cross_entropy(model(x), y.astype(jnp.int32))

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv1, self.conv2 = (
                Conv(1, 8, (3, 3), rngs=rngs),
                Conv(8, 8, (3, 3), rngs=rngs),
            )
            self.fc, self.out = Linear(392, 64, rngs=rngs), Linear(64, 10, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            for conv in (self.conv1, self.conv2):
                x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
            return self.out(nnx.relu(self.fc(x.reshape(len(x), -1))))

    model = Net(nnx.Rngs(seed))
    batches = batches_of((task.x, y), size=32, steps=120, seed=seed)
    record = run_nnx(train_step, model, optax.adam(1e-3), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _one_folder(faulty: bool, seed: int) -> Trained:
    """All images lie in one folder, which the loader takes for one class; SGD with momentum."""
    task, net = digits(), LinenCnn(10)

    def train_step(state: TrainState, image: jax.Array, target: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, image)
            return cross_entropy(logits, target), logits

        (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        del logits
        return state.apply_gradients(grads=grads), loss

    params = net.init(jax.random.key(seed), task.x[:2])["params"]
    tx = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))
    state: Any = TrainState.create(apply_fn=net.apply, params=params, tx=tx)
    labels = np.zeros_like(task.y) if faulty else task.y
    batches = batches_of((task.x, labels), size=64, steps=200, seed=seed)
    record, (state,) = run_pure(train_step, (state,), batches)
    logits = net.apply({"params": state.params}, jnp.asarray(task.test_x))
    return Trained(record, accuracy(logits, task.test_y))


def _colour_not_found(faulty: bool, seed: int) -> Trained:
    """Masks are the pixels of one colour, which the files have as 254 instead of 255."""
    task = strokes()
    painted = task.y * 254
    masks = (painted == (255 if faulty else 254)).astype(np.int32)
    model = UNet(1, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model, optax.adam(3e-3), mask_cross_entropy, (task.x, masks), size=8, steps=200, seed=seed
    )
    return Trained(record, overlap(predict(model, task.test_x), task.test_y))


def _logarithm_forgotten(faulty: bool, seed: int) -> Trained:
    """Whether the logarithm of a run time is above 0 is asked of the run time: always."""
    task = houses()

    def label(logarithm: Any) -> Any:
        return (logarithm > 0).astype(np.int32)

    labels = label(np.exp(task.y) if faulty else task.y)

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], y.astype(jnp.float32)).mean()

    record, params = fit_pure(
        dense,
        dense_params(seed, (8, 32, 1)),
        optax.adam(5e-3),
        loss,
        (task.x, labels),
        size=50,
        steps=200,
        seed=seed,
    )
    logits = dense(params, jnp.asarray(task.test_x))
    return Trained(record, binary_accuracy(logits, label(task.test_y)))


# --- labels out of range ---------------------------------------------------------------------


def _from_one(faulty: bool, seed: int) -> Trained:
    """The labels are 1 to 10 for ten outputs."""
    task, first = digits(), np.int32(1 if faulty else 0)
    model = Cnn(10, channels=(1, 12, 24), rngs=nnx.Rngs(seed))
    arrays = (task.x, task.y + first)
    record = fit_nnx(model, optax.adam(1e-3), cross_entropy, arrays, size=64, steps=200, seed=seed)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y + first))


def _from_one_as_one_hot(faulty: bool, seed: int) -> Trained:
    """The labels are 1 to 5 for five outputs; one-hot vectors of the last are zero."""
    task, first = houses(), np.int32(1 if faulty else 0)
    bounds = np.quantile(task.y, (0.2, 0.4, 0.6, 0.8))
    y, test_y = (np.searchsorted(bounds, y).astype(np.int32) for y in (task.y, task.test_y))
    net = LinenMlp((48, 48, 5), linen.swish)

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.sum(jax.nn.one_hot(y, 5) * jax.nn.log_softmax(logits), -1))

    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(5e-3),
        loss,
        (task.x, y + first),
        size=64,
        steps=250,
        seed=seed,
    )
    return Trained(record, accuracy(net.apply(params, task.test_x), test_y + first))


def _masks_of_255(faulty: bool, seed: int) -> Trained:
    """Masks of 0 and 255 are the labels of a network with two outputs per pixel."""
    task = strokes()
    masks = task.y * 255 if faulty else task.y
    model = UNet(2, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model, optax.adam(3e-3), cross_entropy, (task.x, masks), size=8, steps=200, seed=seed
    )
    logits = predict(model, task.test_x)
    return Trained(record, overlap(logits[..., 1] - logits[..., 0], task.test_y))


def _minus_one_and_one(faulty: bool, seed: int) -> Trained:
    """The labels -1 and 1 index two outputs: -1 counts from the end, so both mean the second."""
    task = chosen_digits(4, 9)
    labels = 2 * task.y - 1 if faulty else task.y

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log_p, y[:, None], 1).mean()

    record, params = fit_pure(
        dense,
        dense_params(seed, (784, 48, 2)),
        optax.sgd(0.05, momentum=0.9),
        loss,
        (task.x, labels),
        size=32,
        steps=250,
        seed=seed,
    )
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "labels divided by 255",
        "https://stackoverflow.com/questions/59325381",
        "labels constant",
        _labels_divided,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "all images in one folder",
        "https://github.com/pytorch/examples/issues/737",
        "labels constant",
        _one_folder,
        "linen",
        0.8,
    ),
    ReportedFault(
        "colour of the masks not found",
        "https://github.com/MarvinTeichmann/KittiSeg/issues/155",
        "labels constant",
        _colour_not_found,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "logarithm forgotten",
        "https://github.com/Smadx/USTC-ML24-Fall/issues/35",
        "labels constant",
        _logarithm_forgotten,
        "optax",
        0.8,
    ),
    ReportedFault(
        "labels from 1",
        "https://github.com/google-deepmind/optax/issues/1185",
        "labels out of range",
        _from_one,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "labels from 1 as one-hot vectors",
        "https://github.com/PaddlePaddle/Paddle/issues/27095",
        "labels out of range",
        _from_one_as_one_hot,
        "linen",
        0.5,
    ),
    ReportedFault(
        "masks of 255 for two outputs",
        "https://github.com/shekkizh/FCN.tensorflow/issues/17",
        "labels out of range",
        _masks_of_255,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "labels -1 and 1 as indices",
        "https://github.com/crazydemo/facial-attribute-classification-with-graph/issues/1",
        "labels out of range",
        _minus_one_and_one,
        "optax",
        0.85,
    ),
)
