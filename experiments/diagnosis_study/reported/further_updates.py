"""Further reported faults of the update: it is lost, or its gradients are kept."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState

import convjax
from experiments.diagnosis_study.reported.data_networks import (
    LinenDense,
    cross_entropy,
    dense,
    dense_params,
    lecun_normal,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
    accuracy,
    binary_accuracy,
    chosen_digits,
    digits,
    tones,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


def _accumulation_begins_anew(faulty: bool, seed: int) -> Trained:
    """Accumulates eight batches for an update, and begins anew each epoch, which has five."""
    tx = optax.MultiSteps(optax.adam(1e-2), every_k_schedule=8)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            signs = 2.0 * y - 1.0
            return jnp.mean(jnp.logaddexp(0.0, -signs * dense(params, x)[:, 0]))

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    task = chosen_digits(2, 7)
    arrays = task.x[::5], task.y[::5]  # few examples, of both classes
    params: Any = dense_params(seed, (784, 32, 1))
    opt_state = tx.init(params)
    recorder = convjax.Recorder()
    watched = recorder.watch(step)
    for epoch in range(40):
        if faulty:
            opt_state = tx.init(params)
        for x, y in batches_of(arrays, size=32, steps=5, seed=seed + epoch):
            params, opt_state, _ = watched(params, opt_state, x, y)
    logits = dense(params, jnp.asarray(task.test_x))
    return Trained(recorder.record(), binary_accuracy(logits, task.test_y))


class RecurrentNet(linen.Module):
    """Reads a wave in frames of eight samples, with tanh, and classifies the last state."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps waves (N, T) to logits (N, 4)."""
        frames = LinenDense(32, name="enter")(x.reshape(len(x), -1, 8))
        recur = self.param("recur", lecun_normal, (32, 32))

        def read(state: jax.Array, frame: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(state @ recur + frame), None

        state, _ = jax.lax.scan(read, jnp.zeros((len(x), 32)), jnp.swapaxes(frames, 0, 1))
        return LinenDense(4, name="head")(state)


def _network_built_again(faulty: bool, seed: int) -> Trained:
    """Builds the network again after its optimiser, which moves the first network's weights."""
    task, network = tones(), RecurrentNet()
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    first = network.init(jax.random.key(seed), task.x[:2])["params"]
    state = TrainState.create(apply_fn=network.apply, params=first, tx=tx)
    params = network.init(jax.random.key(seed + 1), task.x[:2])["params"] if faulty else first

    def step(state: TrainState, params: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            return cross_entropy(state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        state = state.apply_gradients(grads=grads)
        return state, params if faulty else state.params, loss

    batches = batches_of((task.x, task.y), size=50, steps=250, seed=seed)
    record, (_, params) = run_pure(step, (state, params), batches)
    return Trained(record, accuracy(network.apply({"params": params}, task.test_x), task.test_y))


class WaveNet(nnx.Module):
    """Convolutions in time, the mean over time, and logits."""

    def __init__(self, rngs: nnx.Rngs):
        features = (1, 12, 16, 24)
        self.convs = nnx.List(
            [
                nnx.Conv(i, o, (7,), strides=2, kernel_init=lecun_normal, rngs=rngs)
                for i, o in pairwise(features)
            ]
        )
        self.head = nnx.Linear(24, 4, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps waves (N, T) to logits (N, 4)."""
        x = x[..., None]
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.head(x.mean(1))


def accumulate() -> optax.GradientTransformation:
    """Returns a transformation that adds all gradients, which nothing clears."""

    def update(grads: Any, sums: Any, params: Any = None) -> Any:
        sums = jax.tree.map(jnp.add, sums, grads)
        return sums, sums

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def _keywords_without_clearing(faulty: bool, seed: int) -> Trained:
    """Spots keywords with Adam, to which each step gives the sum of all gradients so far."""

    def step(model: WaveNet, optimizer: nnx.Optimizer[Any], batch: dict[str, jax.Array]) -> Any:
        def loss_fn(model: WaveNet) -> jax.Array:
            log_probability = jax.nn.log_softmax(model(batch["wave"]))
            return -jnp.take_along_axis(log_probability, batch["word"][:, None], 1).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    task, adam = tones(), optax.adam(5e-3)
    model = WaveNet(nnx.Rngs(seed))
    batches = (
        ({"wave": x, "word": y},)
        for x, y in batches_of((task.x, task.y), size=50, steps=240, seed=seed)
    )
    record = run_nnx(step, model, optax.chain(accumulate(), adam) if faulty else adam, batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _accuracy_that_falls(faulty: bool, seed: int) -> Trained:
    """Subtracts the sum of all gradients in an update by hand, and the accuracy falls again."""
    task, rate = digits(), 0.1

    def step(params: Any, sums: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            return cross_entropy(dense(params, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        sums = jax.tree.map(jnp.add, sums, grads) if faulty else grads
        return jax.tree.map(lambda p, s: p - rate * s, params, sums), sums, loss

    params: Any = dense_params(seed, (784, 64, 10))
    state = params, jax.tree.map(jnp.zeros_like, params)
    batches = batches_of((task.x, task.y), size=64, steps=250, seed=seed)
    record, (params, _) = run_pure(step, state, batches)
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


_NOT_APPLIED, _ACCUMULATE = "update not applied", "gradients accumulate"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "accumulation that no epoch completes",
        _GITHUB + "timoschick/pet/pull/25",
        _NOT_APPLIED,
        _accumulation_begins_anew,
        "optax",
        0.85,
    ),
    ReportedFault(
        "network built again after its optimiser",
        _GITHUB + "spro/practical-pytorch/issues/9",
        _NOT_APPLIED,
        _network_built_again,
        "linen",
        0.75,
    ),
    ReportedFault(
        "keywords, gradients never cleared",
        _GITHUB + "wenet-e2e/wekws/pull/73",
        _ACCUMULATE,
        _keywords_without_clearing,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "accuracy that falls to chance",
        _GITHUB + "Miraclelucy/dive_into_deep_learning/issues/6",
        _ACCUMULATE,
        _accuracy_that_falls,
        "optax",
        0.75,
    ),
)
