"""Reported faults of norms, weights, regularisation and evaluation, of the last collection."""

from itertools import pairwise
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convjax
from experiments.diagnosis_study.reported.data_networks import (
    Conv,
    LinenMlp,
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
    digits,
    explained,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.evaluation import pure_step
from experiments.diagnosis_study.reported.evaluation_tasks import (
    centres,
    linen_state,
    species,
)
from experiments.diagnosis_study.reported.evaluation_tasks import dense as named_dense
from experiments.diagnosis_study.reported.evaluation_tasks import dense_params as named_params
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import HostArray, Trained, batches_of, run_pure


def _squares_of_weights(faulty: bool, seed: int) -> Trained:
    """The loss has the squares of the weights, times a tenth, not 1e-5."""
    task = digits()
    strength = 0.1 if faulty else 1e-5

    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            weights = [p for p in jax.tree.leaves(params) if p.ndim > 1]
            squares = sum((jnp.sum(w**2) for w in weights), jnp.zeros(()))
            return cross_entropy(state.apply_fn({"params": params}, x), y) + strength * squares

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    state = linen_state(LinenMlp((64, 32, 10)), task.x, optax.sgd(0.2), seed)
    batches = batches_of((task.x, task.y), size=50, steps=200, seed=seed)
    record, (state,) = run_pure(step, (state,), batches)
    logits = state.apply_fn({"params": state.params}, jnp.asarray(task.test_x))
    return Trained(record, accuracy(logits, task.test_y))


class MaskDecoder(nnx.Module):
    """Convolutions, dropout, and a logit for each pixel.

    Args:
      rate: of the features that are dropped.
    """

    def __init__(self, rate: float, rngs: nnx.Rngs):
        sizes = (1, 12, 12, 6)
        self.convs = nnx.List([Conv(i, o, (3, 3), rngs=rngs) for i, o in pairwise(sizes)])
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.out = Conv(6, 1, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to logits of the same shape."""
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.out(self.dropout(x))


def _what_is_kept_is_dropped(faulty: bool, seed: int) -> Trained:
    """The rate of features to keep becomes that of features to drop, in a port of a decoder."""
    task, model = strokes(), MaskDecoder(0.9 if faulty else 0.1, nnx.Rngs(seed))
    arrays, tx = (task.x, task.y), optax.adam(3e-3)
    record = fit_nnx(model, tx, mask_cross_entropy, arrays, size=16, steps=150, seed=seed)
    return Trained(record, overlap(predict(model, task.test_x), task.test_y))


def _best_before_the_first_epoch(faulty: bool, seed: int) -> Trained:
    """A check before the training has an error of 0, so that its weights remain the best."""
    train, test = ((x.reshape(len(x), -1), y) for x, y in centres())
    params: Any = named_params((144, 64, 32, 2), seed)
    tx, recorder = optax.adam(2e-3), convjax.Recorder()
    step = pure_step(named_dense, squared_error, tx, labels=False)
    evaluate = jax.jit(lambda params, x, y: squared_error(named_dense(params, x), y))
    x_eval, y_eval = (jnp.asarray(array[:200]) for array in test)
    opt_state, best, least = tx.init(params), params, 0.0 if faulty else float("inf")
    for x, y in batches_of(train, size=50, steps=200, seed=seed):
        params, opt_state, *result = step(params, opt_state, x, y)
        error = float(evaluate(params, x_eval, y_eval))
        if error < least:
            best, least = params, error
        recorder.add(*result, eval_loss=evaluate(best, x_eval, y_eval))
    return Trained(recorder.record(), explained(named_dense(best, jnp.asarray(test[0])), test[1]))


def _spots(count: int = 1800) -> tuple[HostArray, HostArray]:
    """Returns images with 0 to 5 bright spots (N, 16, 16, 1), and their number, scaled."""
    rng = np.random.default_rng(SEED)
    number = rng.integers(6, size=count)
    grid = np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1)
    place = rng.uniform(1, 15, size=(count, 5, 1, 1, 2))
    each = np.exp(-((grid - place) ** 2).sum(-1) / 1.5)
    there = np.arange(5) < number[:, None]
    x = 60 + 40 * (each * there[..., None, None]).sum(1) + 4 * rng.normal(size=(count, 16, 16))
    return x[..., None].astype(np.float32), ((number - 2.5) / 1.7).astype(np.float32)


def _moving_averages_not_updated(faulty: bool, seed: int) -> Trained:
    """No step of the training updates the moving mean and variance of batch norm."""
    x, y = _spots()

    def count(x: jax.Array, training: bool) -> jax.Array:
        for features in (8, 16):
            x = hk.Conv2D(features, 3, stride=2, with_bias=False)(x)
            x = jax.nn.relu(hk.BatchNorm(True, True, decay_rate=0.9)(x, training))
        return hk.Linear(1)(x.mean((1, 2)))[:, 0]

    net, tx = hk.without_apply_rng(hk.transform_with_state(count)), optax.adam(1e-2)

    def step(params: Any, averages: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            outputs, new = net.apply(params, averages, x, True)
            return squared_error(outputs, y), new

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return params, averages if faulty else new, opt_state, loss

    params, averages = net.init(jax.random.key(seed), jnp.asarray(x[:2]), True)
    batches = batches_of((x[:1500], y[:1500]), size=32, steps=200, seed=seed)
    record, state = run_pure(step, (params, averages, tx.init(params)), batches)
    outputs, _ = net.apply(*state[:2], jnp.asarray(x[1500:]), False)
    return Trained(record, explained(outputs, y[1500:]))


class Counter(nnx.Module):
    """Convolutions with batch norm, their mean over the image, and a number."""

    def __init__(self, rngs: nnx.Rngs):
        sizes = (1, 8, 8, 8, 16, 16)
        self.convs = nnx.List(
            [
                Conv(i, o, (3, 3), strides=2 if o > i else 1, use_bias=False, rngs=rngs)
                for i, o in pairwise(sizes)
            ]
        )
        self.norms = nnx.List([nnx.BatchNorm(o, momentum=0.9, rngs=rngs) for o in sizes[1:]])
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to numbers (N, 1)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return self.out(x.mean((1, 2)))


def _blobs_are_counted_first(faulty: bool, seed: int) -> Trained:
    """Blobs are found in evaluation mode before the loss, and the model stays in that mode."""
    x, y = _spots()
    x = (x - 60) / 20
    model = Counter(nnx.Rngs(seed))
    if faulty:
        model.eval()
    arrays, tx = (x[:1500], y[:1500]), optax.sgd(0.05, momentum=0.9)
    record = fit_nnx(model, tx, squared_error, arrays, size=32, steps=200, seed=seed)
    return Trained(record, explained(predict(model, x[1500:]), y[1500:]))


def _both_layers_of_a_gate(faulty: bool, seed: int) -> Trained:
    """Both layers of the gate that lets one kind of features in begin at zero, not the last one."""
    train, test = species()
    first, second, head = (
        dense_params(seed + i, sizes)[0] for i, sizes in enumerate(((48, 48), (48, 48), (48, 4)))
    )
    zeros = {"w": jnp.zeros((48, 48))}
    params: Any = {
        "image": dense_params(seed + 3, (5, 48)),
        "words": dense_params(seed + 4, (10, 64, 48)),
        "first": zeros if faulty else {"w": first["w"]},
        "second": zeros,
        "head": head,
    }
    del second

    def network(params: Any, x: jax.Array) -> jax.Array:
        seen = jax.nn.relu(dense(params["image"], x[:, 5:]))
        told = jax.nn.relu(dense(params["words"], x))
        gate = jnp.tanh(jax.nn.relu(told @ params["first"]["w"]) @ params["second"]["w"])
        return (seen + gate * told) @ params["head"]["w"] + params["head"]["b"]

    tx = optax.adam(5e-3)
    record, params = fit_pure(
        network, params, tx, cross_entropy, train, size=50, steps=250, seed=seed
    )
    return Trained(record, accuracy(network(params, jnp.asarray(test[0])), test[1]))


_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "too much of the squares of the weights",
        _GITHUB + "leonardoaraujosantos/DLMatFramework/issues/1",
        "weight decay too strong",
        _squares_of_weights,
        "linen",
        0.8,
    ),
    ReportedFault(
        "dropout of 0.9 before the logits of pixels",
        _GITHUB + "bonlime/keras-deeplab-v3-plus/issues/4",
        "dropout too strong",
        _what_is_kept_is_dropped,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "best weights of the check before the training",
        _GITHUB + "roboflow/rf-detr/issues/1348",
        "evaluation of other parameters",
        _best_before_the_first_epoch,
        "optax",
        0.8,
    ),
    ReportedFault(
        "moving averages that no step updates",
        _GITHUB + "YunYang1994/tensorflow-yolov3/issues/23",
        "batch-norm statistics",
        _moving_averages_not_updated,
        "haiku",
        0.7,
    ),
    ReportedFault(
        "blobs found in evaluation mode",
        _GITHUB + "ServiceNow/LCFCN/issues/20",
        "running statistics used in training",
        _blobs_are_counted_first,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "both layers of a gate begin at zero",
        _GITHUB + "yz93/LAVT-RIS/issues/25",
        "zero weights",
        _both_layers_of_a_gate,
        "optax",
        0.6,
    ),
)
