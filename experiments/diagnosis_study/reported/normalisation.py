"""Reported faults of batch norm: its running statistics are lost, lag, or are used in training."""

from collections.abc import Iterator
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
    centres,
    cross_entropy,
    digits,
    explained,
    measurements,
    nnx_step,
    squared_error,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class LinenNet(linen.Module):
    """Convolutions with batch norm, and a dense layer."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, 1) to logits (N, 10)."""
        for features in (8, 16):
            x = linen.Conv(features, (3, 3), strides=2, use_bias=False)(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return linen.Dense(10)(x.reshape(len(x), -1))


def old_state_returned(faulty: bool, seed: int) -> Trained:
    """Returns the statistics that the step was given, and not the updated ones."""
    network, tx = LinenNet(), optax.adam(3e-3)

    def step(params: Any, opt_state: Any, stats: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            variables = {"params": params, "batch_stats": stats}
            logits, new = network.apply(variables, x, train=True, mutable=["batch_stats"])
            return cross_entropy(logits, y), new["batch_stats"]

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, stats if faulty else new, loss

    train, test = digits(step=2)
    variables = network.init(jax.random.key(seed), train[0][:2])
    state = variables["params"], tx.init(variables["params"]), variables["batch_stats"]
    batches = batches_of(train, size=64, steps=160, seed=seed)
    record, (params, _, stats) = run_pure(step, state, batches)
    logits = network.apply({"params": params, "batch_stats": stats}, test[0])
    return Trained(record, accuracy(logits, test[1]))


class SegmentationNet(nnx.Module):
    """Convolutions with batch norm, and a logit for each pixel."""

    def __init__(self, momentum: float, rngs: nnx.Rngs):
        self.stages = nnx.List(
            [
                nnx.Sequential(
                    nnx.Conv(i, 12, (3, 3), use_bias=False, rngs=rngs),
                    nnx.BatchNorm(12, momentum=momentum, rngs=rngs),
                    nnx.relu,
                )
                for i in (1, 12)
            ]
        )
        self.mask = nnx.Conv(12, 1, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to logits of the same shape."""
        for stage in self.stages:
            x = stage(x)
        return self.mask(x)


def momentum_of_another_library(faulty: bool, seed: int) -> Trained:
    """Takes over a momentum whose complement is meant: the statistics hardly move."""
    train, test = strokes()
    model = SegmentationNet(0.9997 if faulty else 0.9, nnx.Rngs(seed))
    batches = batches_of(train, size=32, steps=150, seed=seed)
    record = run_nnx(nnx_step(binary_cross_entropy), model, optax.adam(3e-3), batches)
    model.eval()
    return Trained(record, binary_accuracy(model(test[0]), test[1]))


class SpotNet(nnx.Module):
    """Convolutions with batch norm, and two outputs."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
        self.norm1 = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.norm2 = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.out = nnx.Linear(16 * 9, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 12, 12, 1) to places (N, 2)."""
        x = nnx.silu(self.norm1(self.conv1(x)))
        x = nnx.silu(self.norm2(self.conv2(x)))
        return self.out(x.reshape(len(x), -1))


def statistics_of_a_copy(faulty: bool, seed: int) -> Trained:
    """Calls a copy of the model that is made for the gradient, whose statistics are lost."""
    graph, params, rest = nnx.split(SpotNet(nnx.Rngs(seed)), nnx.Param, ...)
    tx = optax.adam(3e-3)

    def step(params: Any, opt_state: Any, rest: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            # Mapped, because variables of outside may not change within the gradient.
            model = nnx.merge(graph, params, jax.tree.map(lambda leaf: leaf, rest))
            return squared_error(model(x), y), nnx.state(model, nnx.Not(nnx.Param))

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, rest if faulty else new, loss

    train, test = centres()
    batches = batches_of((4 * train[0] + 3, train[1]), size=40, steps=160, seed=seed)
    record, (params, _, rest) = run_pure(step, (params, tx.init(params), rest), batches)
    model = nnx.merge(graph, params, rest)
    model.eval()
    return Trained(record, explained(model(jnp.asarray(4 * test[0] + 3)), test[1]))


class DeepNet(nnx.Module):
    """Linear layers with batch norm between them."""

    def __init__(self, features: tuple[int, ...], rngs: nnx.Rngs):
        pairs = list(pairwise(features))
        self.linear = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in pairs])
        self.steady = nnx.List([nnx.BatchNorm(i, momentum=0.9, rngs=rngs) for i, _ in pairs])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to outputs (N, K)."""
        for i, (linear, steady) in enumerate(zip(self.linear, self.steady, strict=True)):
            x = linear(steady(nnx.relu(x) if i else x))
        return x


def flag_left_at_its_default(faulty: bool, seed: int) -> Trained:
    """Calls the network in training without the flag that makes batch norm normalise."""
    network, tx = LinenNet(), optax.adam(3e-3)

    def step(params: Any, opt_state: Any, stats: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            variables = {"params": params, "batch_stats": stats}
            flag = {} if faulty else {"train": True}
            logits, new = network.apply(variables, x, mutable=["batch_stats"], **flag)
            return cross_entropy(logits, y), new.get("batch_stats", stats)

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, new, loss

    train, test = digits(step=2)
    variables = network.init(jax.random.key(seed), train[0][:2])
    state = variables["params"], tx.init(variables["params"]), variables["batch_stats"]
    batches = batches_of(train, size=50, steps=160, seed=seed)
    record, (params, _, stats) = run_pure(step, state, batches)
    logits = network.apply({"params": params, "batch_stats": stats}, test[0])
    return Trained(record, accuracy(logits, test[1]))


def never_in_training_mode(faulty: bool, seed: int) -> Trained:
    """Trains a critic in evaluation mode, where batch norm does nothing."""
    train, test = measurements()
    model = DeepNet((8, 64, 64, 1), nnx.Rngs(seed))
    if faulty:
        model.eval()
    batches = batches_of(train, size=64, steps=200, seed=seed)
    record = run_nnx(nnx_step(squared_error), model, optax.adam(3e-3), batches)
    model.eval()
    return Trained(record, explained(model(test[0]), test[1]))


def evaluation_mode_after_validation(faulty: bool, seed: int) -> Trained:
    """Turns to evaluation mode for the first validation, and never back."""
    train, test = digits(flat=True, step=2)
    model = DeepNet((196, 64, 64, 10), nnx.Rngs(seed))

    def batches() -> Iterator[tuple[jax.Array, ...]]:
        for i, batch in enumerate(batches_of(train, size=50, steps=200, seed=seed)):
            if i == 20:
                model.eval()
                cross_entropy(model(test[0]), jnp.asarray(test[1]))
                if not faulty:
                    model.train()
            yield batch

    record = run_nnx(nnx_step(cross_entropy), model, optax.sgd(0.05, momentum=0.9), batches())
    model.eval()
    return Trained(record, accuracy(model(test[0]), test[1]))


_STATISTICS, _RUNNING = "batch-norm statistics", "running statistics used in training"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "the old statistics are returned",
        "https://github.com/google/flax/issues/2467",
        _STATISTICS,
        old_state_returned,
        "linen",
        0.8,
    ),
    ReportedFault(
        "momentum of another library's convention",
        "https://github.com/kazuto1011/deeplab-pytorch/issues/79",
        _STATISTICS,
        momentum_of_another_library,
        "nnx",
        0.92,
    ),
    ReportedFault(
        "statistics of a copy for the gradient",
        "https://github.com/facebookresearch/higher/issues/55",
        _STATISTICS,
        statistics_of_a_copy,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "flag of batch norm left at its default",
        "https://timodenk.com/blog/tensorflow-batch-normalization/",
        _RUNNING,
        flag_left_at_its_default,
        "linen",
        0.8,
    ),
    ReportedFault(
        "critic never in training mode",
        "https://github.com/keras-team/keras-io/issues/198",
        _RUNNING,
        never_in_training_mode,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "evaluation mode after the first validation",
        "https://github.com/ermongroup/ncsn/issues/2",
        _RUNNING,
        evaluation_mode_after_validation,
        "nnx",
        0.8,
    ),
)
