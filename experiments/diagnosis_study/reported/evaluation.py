"""Reported faults of the evaluation: it uses other parameters than those that are trained.

What `Recorder.watch` evaluates are the parameters of the step, so that it cannot see this. The
loops pass the loss of their own evaluation to `Recorder.add`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

import convjax
from convjax.stats.watch import INPUT, LABELS
from experiments.diagnosis_study.reported.evaluation_tasks import (
    accuracy,
    cross_entropy,
    dense,
    dense_params,
    digits,
    explained,
    linen_state,
    measurements,
    species,
    squared_error,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of


def pure_step(
    network: Callable[..., jax.Array],
    loss_of: Callable[[jax.Array, jax.Array], jax.Array],
    tx: optax.GradientTransformation,
    *,
    labels: bool = True,
) -> Callable[..., Any]:
    """Returns a compiled step with its statistics, by hand.

    Args:
      network: returns the output, given parameters and inputs.
      loss_of: returns the loss, given output and targets.
      tx: the optimiser.
      labels: whether the targets are labels.
    """

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> Any:
            output, layers = convjax.capture(network, params, x)
            given = {INPUT: x} | ({LABELS: y} if labels else {})
            return loss_of(output, y), convjax.layer_stats(given | dict(layers), units=True)

        (loss, layers), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        stats = convjax.parameter_stats(params, grads=grads, updates=updates)
        return optax.apply_updates(params, updates), opt_state, loss, layers, stats

    return step


class BatchNormNet(nnx.Module):
    """Convolutions with batch norm, and a linear layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 14, 14, 1) to logits (N, 10)."""
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.head(x.reshape(len(x), -1))


def parameters_of_the_start(faulty: bool, seed: int) -> Trained:
    """Evaluates the parameters before the first step, whose name was not changed."""
    train, test = digits(step=2)
    model = BatchNormNet(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    recorder = convjax.Recorder()

    @nnx.jit
    def step(model: BatchNormNet, optimizer: nnx.Optimizer[Any], x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(model: BatchNormNet) -> Any:
            logits, layers = convjax.capture(model, x)
            given = {INPUT: x, LABELS: y}
            return cross_entropy(logits, y), convjax.layer_stats(given | dict(layers), units=True)

        (loss, layers), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
        optimizer.update(model, grads)
        updated = nnx.state(model, nnx.Param)
        stats = convjax.parameter_stats(before, grads=grads, updated=updated)
        return loss, layers, stats

    @nnx.jit
    def evaluation_loss(evaluated: BatchNormNet, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(evaluated(x), y)

    first = nnx.clone(model)
    for x, y in batches_of(train, size=64, steps=160, seed=seed):
        result = step(model, optimizer, x, y)
        evaluated = nnx.clone(first if faulty else model)
        if faulty:  # the statistics are new, the parameters are not
            nnx.update(evaluated, nnx.state(model, nnx.BatchStat))
        evaluated.eval()
        recorder.add(*result, eval_loss=evaluation_loss(evaluated, x, y))
    logits = evaluated(jnp.asarray(test[0]))
    return Trained(recorder.record(), accuracy(logits, test[1]))


def average_moved_once_an_epoch(faulty: bool, seed: int) -> Trained:
    """Evaluates a slow average of the parameters, which moves where an epoch ends."""
    train, test = measurements()
    params = dense_params((8, 48, 48, 1), seed)
    tx, recorder, decay = optax.adam(5e-3), convjax.Recorder(), 0.9999 if faulty else 0.9
    step = pure_step(dense, squared_error, tx, labels=False)
    evaluation_loss = jax.jit(lambda params, x, y: squared_error(dense(params, x), y))
    opt_state, average = tx.init(params), params
    for i, (x, y) in enumerate(batches_of(train, size=40, steps=240, seed=seed)):
        params, opt_state, *result = step(params, opt_state, x, y)
        if not faulty or i % 40 == 39:
            average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
        recorder.add(*result, eval_loss=evaluation_loss(average, x, y))
    return Trained(recorder.record(), explained(dense(average, jnp.asarray(test[0])), test[1]))


class Classifier(linen.Module):
    """Two hidden layers and four logits."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to logits (N, 4)."""
        for _ in range(2):
            x = linen.relu(linen.Dense(64)(x))
        return linen.Dense(4)(x)


def validation_of_random_weights(faulty: bool, seed: int) -> Trained:
    """Builds the model for each validation anew, and does not load the weights into it."""
    train, test = species()
    network, tx, recorder = Classifier(), optax.adam(5e-3), convjax.Recorder()
    state = linen_state(network, train[0], tx, seed)
    params, opt_state, evaluated = state.params, state.opt_state, state.params

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return network.apply({"params": params}, x)

    step = pure_step(apply, cross_entropy, tx)
    evaluation_loss = jax.jit(lambda params, x, y: cross_entropy(apply(params, x), y))
    for i, (x, y) in enumerate(batches_of(train, size=48, steps=240, seed=seed)):
        params, opt_state, *result = step(params, opt_state, x, y)
        if i % 40 != 39:
            recorder.add(*result)
            continue
        evaluated = linen_state(network, train[0], tx, seed + i).params if faulty else params
        recorder.add(*result, eval_loss=evaluation_loss(evaluated, x, y))
    return Trained(recorder.record(), accuracy(apply(evaluated, test[0]), test[1]))


_OTHER = "evaluation of other parameters"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "evaluation with the first parameters",
        "https://github.com/google/flax/pull/3982",
        _OTHER,
        parameters_of_the_start,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "evaluation of an average that hardly moves",
        "https://github.com/fadel/pytorch_ema/issues/15",
        _OTHER,
        average_moved_once_an_epoch,
        "optax",
        0.7,
    ),
    ReportedFault(
        "validation of random weights",
        "https://github.com/mk-minchul/AdaFace/issues/120",
        _OTHER,
        validation_of_random_weights,
        "linen",
        0.8,
    ),
)
