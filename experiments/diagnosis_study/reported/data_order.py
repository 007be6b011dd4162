"""Reported faults: inputs and labels that do not match, and batches of one class."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    Cnn,
    LinenCnn,
    LinenUNet,
    Mlp,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    in_dicts,
    predict,
    squared_error,
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
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure

# --- inputs and labels do not match ----------------------------------------------------------


def _shuffled_apart(faulty: bool, seed: int) -> Trained:
    """The images and the labels are shuffled separately."""
    task, rng = digits(), np.random.default_rng(seed)
    x = task.x[rng.permutation(len(task.x))] if faulty else task.x

    def train_step(model: Any, optimizer: Any, batch: dict[str, jax.Array]) -> Any:
        def loss_fn(model: Any) -> Any:
            logits = model(batch["image"])
            return cross_entropy(logits, batch["label"]), logits

        (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        optimizer.update(model, grads)
        return {"loss": loss, "accuracy": jnp.mean(logits.argmax(-1) == batch["label"])}

    model = Cnn(10, channels=(1, 8, 16, 32), rngs=nnx.Rngs(seed))
    batches = in_dicts(batches_of((x, task.y), size=64, steps=200, seed=seed))
    record = run_nnx(train_step, model, optax.adam(3e-3), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _masks_in_another_order(faulty: bool, seed: int) -> Trained:
    """The files of the masks are listed in another order than those of the images."""
    task = strokes()
    order = np.random.default_rng(1).permutation(len(task.y)) if faulty else slice(None)
    net = LinenUNet(2)
    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(3e-3),
        cross_entropy,
        (task.x, task.y[order]),
        size=8,
        steps=200,
        seed=seed,
    )
    logits = np.asarray(net.apply(params, jnp.asarray(task.test_x)))
    return Trained(record, overlap(logits[..., 1] - logits[..., 0], task.test_y))


def _labels_before_shuffling(faulty: bool, seed: int) -> Trained:
    """The list of examples is shuffled after the labels were read from it; two classes."""
    task = chosen_digits(3, 7)
    order = np.random.default_rng(seed).permutation(len(task.x))
    labels = task.y if faulty else task.y[order]

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], y.astype(jnp.float32)).mean()

    record, params = fit_pure(
        lambda params, x: dense(params, x, jnp.tanh),
        dense_params(seed, (784, 32, 1)),
        optax.sgd(0.05, momentum=0.9),
        loss,
        (task.x[order], labels),
        size=32,
        steps=200,
        seed=seed,
    )
    logits = dense(params, jnp.asarray(task.test_x), jnp.tanh)
    return Trained(record, binary_accuracy(logits, task.test_y))


def _index_not_reset(faulty: bool, seed: int) -> Trained:
    """A table is shuffled and split, and the targets keep the index of the table before."""
    task = houses()
    order = np.random.default_rng(seed).permutation(len(task.y))
    y = task.y if faulty else task.y[order]
    model = Mlp((8, 64, 64, 1), activation=nnx.silu, rngs=nnx.Rngs(seed))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
    record = fit_nnx(model, tx, squared_error, (task.x[order], y), size=64, steps=250, seed=seed)
    return Trained(record, explained(predict(model, task.test_x), task.test_y))


# --- batches of one class --------------------------------------------------------------------


def _sorted_classes(faulty: bool, seed: int) -> Trained:
    """The file has the examples of class 0 first and so on, and they are not shuffled."""
    task = digits()
    order = np.argsort(task.y, kind="stable")
    model = Cnn(10, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model,
        optax.adam(1e-3),
        cross_entropy,
        (task.x[order], task.y[order]),
        size=50,
        steps=240,
        seed=seed,
        shuffle=not faulty,
    )
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _positives_then_negatives(faulty: bool, seed: int) -> Trained:
    """A list has all positive examples and then all negative ones; two classes, SGD."""
    task = chosen_digits(0, 6)
    order = np.argsort(-task.y, kind="stable")
    record, params = fit_pure(
        dense,
        dense_params(seed, (784, 64, 2)),
        optax.sgd(0.02, momentum=0.9),
        cross_entropy,
        (task.x[order], task.y[order]),
        size=20,
        steps=240,
        seed=seed,
        shuffle=not faulty,
    )
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


def _one_label_per_batch(faulty: bool, seed: int) -> Trained:
    """Each batch has one of four labels, in random order of the labels."""
    task, size = chosen_digits(1, 2, 4, 5), 40
    net, tx = LinenCnn(4), optax.adam(1e-2)

    def batches(steps: int) -> Iterator[tuple[jax.Array, ...]]:
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            examples = np.flatnonzero(task.y == rng.integers(4))
            chosen = rng.choice(examples if faulty else len(task.y), size, replace=False)
            yield jnp.asarray(task.x[chosen]), jnp.asarray(task.y[chosen])

    def step(state: dict[str, Any], images: jax.Array, labels: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            logits = net.apply({"params": params}, images)
            one_hot = jax.nn.one_hot(labels, 4)
            return optax.softmax_cross_entropy(logits, one_hot).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state["params"])
        updates, opt = tx.update(grads, state["opt"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "opt": opt}, loss

    params = net.init(jax.random.key(seed), task.x[:2])["params"]
    record, (state,) = run_pure(step, ({"params": params, "opt": tx.init(params)},), batches(200))
    logits = net.apply({"params": state["params"]}, jnp.asarray(task.test_x))
    return Trained(record, accuracy(logits, task.test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "images and labels shuffled apart",
        "https://github.com/mlcommons/GaNDLF/pull/870",
        "inputs and labels do not match",
        _shuffled_apart,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "masks in another order",
        "https://github.com/advaitsave/Multiclass-Semantic-Segmentation-CamVid/issues/3",
        "inputs and labels do not match",
        _masks_in_another_order,
        "linen",
        0.6,
    ),
    ReportedFault(
        "labels read before shuffling",
        "https://github.com/Borda/kaggle_image-classify/pull/12",
        "inputs and labels do not match",
        _labels_before_shuffling,
        "optax",
        0.9,
    ),
    ReportedFault(
        "index of the targets not reset",
        "https://github.com/IBM/AutoXAI4Omics/pull/58",
        "inputs and labels do not match",
        _index_not_reset,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "classes in order",
        "https://github.com/zalandoresearch/fashion-mnist/pull/5",
        "batches of one class",
        _sorted_classes,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "positives, then negatives",
        "https://github.com/BVLC/caffe/issues/2343",
        "batches of one class",
        _positives_then_negatives,
        "optax",
        0.9,
    ),
    ReportedFault(
        "one label per batch",
        "https://datascience.stackexchange.com/questions/76951/"
        "how-much-of-a-problem-is-each-member-of-a-batch-having-the-same-label",
        "batches of one class",
        _one_label_per_batch,
        "linen",
        0.85,
    ),
)
