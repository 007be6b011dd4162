"""Reported faults: losses that are not finite while the outputs are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenMlp,
    Mlp,
    UNet,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    chosen_digits,
    digits,
    explained,
    houses,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure


def _logarithm_of_softmax(faulty: bool, seed: int) -> Trained:
    """The cross entropy is written as y·log(softmax): 0·log(0) once a probability is 0."""
    task = digits()

    def naive(logits: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.sum(jax.nn.one_hot(y, 10) * jnp.log(nnx.softmax(logits)), -1))

    init = nnx.initializers.truncated_normal(0.38)
    model = Mlp((784, 128, 64, 10), kernel_init=init, rngs=nnx.Rngs(seed))
    loss = naive if faulty else cross_entropy
    record = fit_nnx(
        model, optax.adam(1e-2), loss, (task.x, task.y), size=100, steps=200, seed=seed
    )
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _logarithm_of_predictions(faulty: bool, seed: int) -> Trained:
    """A loss of log(1 + prediction) meets predictions below -1; the targets span decades."""
    task = houses()
    y, test_y = (np.exp(1.5 * y).astype(np.float32) for y in (task.y, task.test_y))
    net = LinenMlp((64, 64, 1))

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        outputs = outputs[:, 0]
        if faulty:
            return jnp.mean((jnp.log(outputs + 1) - jnp.log(y + 1)) ** 2)
        return jnp.mean((outputs - jnp.log(y + 1)) ** 2)

    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(3e-3),
        loss,
        (task.x, y),
        size=8,
        steps=300,
        seed=seed,
    )
    outputs = net.apply(params, jnp.asarray(task.test_x))
    logarithms = jnp.log(outputs + 1) if faulty else outputs
    return Trained(record, explained(logarithms, np.log(test_y + 1)))


def _batch_without_pixels(faulty: bool, seed: int) -> Trained:
    """The loss is a mean over the pixels that count, of which some batches have none."""
    task = strokes()
    masks = task.y.copy()
    masks[np.random.default_rng(SEED).random(len(masks)) < 0.1] = 2  # pixels that do not count

    def loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
        weights = jnp.array([1.0, 2.0, 0.0])[masks]
        labels = jnp.minimum(masks, 1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        total = jnp.sum(weights)
        return jnp.sum(weights * losses) / (total if faulty else jnp.maximum(total, 1))

    model = UNet(2, rngs=nnx.Rngs(seed))
    record = fit_nnx(model, optax.adam(3e-3), loss, (task.x, masks), size=2, steps=300, seed=seed)
    logits = predict(model, task.test_x)
    return Trained(record, overlap(logits[..., 1] - logits[..., 0], task.test_y))


def _policy_of_certainty(faulty: bool, seed: int) -> Trained:
    """A policy gradient takes the logarithm of the probabilities of all actions."""
    task, tx = chosen_digits(0, 1, 2, 3), optax.adam(1e-2)

    def play(
        params: Any, opt_state: Any, key: jax.Array, state: jax.Array, right: jax.Array
    ) -> Any:
        key, key_of_actions = jax.random.split(key)
        actions = jax.random.categorical(key_of_actions, dense(params, state))
        advantage = (actions == right) - 0.25

        def policy_loss(params: Any) -> jax.Array:
            logits = dense(params, state)
            log_p = jnp.log(jax.nn.softmax(logits)) if faulty else jax.nn.log_softmax(logits)
            return -jnp.mean(advantage * jnp.sum(jax.nn.one_hot(actions, 4) * log_p, -1))

        loss, grads = jax.value_and_grad(policy_loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, key, loss

    params = dense_params(seed, (784, 64, 4))
    batches = batches_of((task.x, task.y), size=64, steps=300, seed=seed)
    state = (params, tx.init(params), jax.random.key(seed))
    record, (params, *_) = run_pure(play, state, batches)
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "logarithm of a softmax",
        "https://stackoverflow.com/questions/33712178",
        "loss not finite",
        _logarithm_of_softmax,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "logarithm of predictions below -1",
        "https://github.com/timeseriesAI/tsai/issues/150",
        "loss not finite",
        _logarithm_of_predictions,
        "linen",
        0.7,
    ),
    ReportedFault(
        "mean over no pixels",
        "https://github.com/ultralytics/ultralytics/issues/25096",
        "loss not finite",
        _batch_without_pixels,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "policy of certain actions",
        "https://github.com/hunkim/ReinforcementZeroToAll/pull/16",
        "loss not finite",
        _policy_of_certainty,
        "optax",
        0.8,
    ),
)
