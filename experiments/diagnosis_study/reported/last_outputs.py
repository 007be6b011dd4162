"""Reported faults of outputs, of a rate and of a mean, of the last collection."""

from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    Mlp,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    chosen_digits,
    explained,
    recalled,
    sentences,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure


def _probability_of_a_click(faulty: bool, seed: int) -> Trained:
    """A binary output is a probability, and its loss takes logits by default."""
    rng = np.random.default_rng(SEED)
    users, items = rng.integers(20, size=3000), rng.integers(30, size=3000)
    liked = (rng.normal(size=(20, 3)) @ rng.normal(size=(3, 30)))[users, items]
    x = np.stack([users, items], 1).astype(np.int32)
    y = (liked > 1.5).astype(np.float32)

    def click(x: jax.Array) -> jax.Array:
        user, item = hk.Embed(20, 16)(x[:, 0]), hk.Embed(30, 16)(x[:, 1])
        hidden = jax.nn.relu(hk.Linear(48)(jnp.concatenate([user * item, user, item], 1)))
        logits = hk.Linear(1)(hidden)[:, 0]
        return jax.nn.sigmoid(logits) if faulty else logits

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(outputs, y).mean()

    net = hk.without_apply_rng(hk.transform(click))
    params = net.init(jax.random.key(seed), jnp.asarray(x[:2]))
    arrays, tx = (x[:2500], y[:2500]), optax.adam(5e-3)
    record, params = fit_pure(net.apply, params, tx, loss, arrays, size=50, steps=250, seed=seed)
    found = net.apply(params, jnp.asarray(x[2500:])) - (0.5 if faulty else 0)
    return Trained(record, recalled(found, y[2500:]))


def _sigmoid_of_tanh(faulty: bool, seed: int) -> Trained:
    """An actor's output goes through tanh and then a sigmoid, so that no action nears 0 or 1."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(2000, 10)).astype(np.float32)
    y = np.stack([x[:, 0] + x[:, 1] * x[:, 2], x[:, 3] - x[:, 4], x[:, 5] * 2], 1)
    y = (1 / (1 + np.exp(-2 * y))).astype(np.float32)

    def bounded(x: jax.Array) -> jax.Array:
        return nnx.sigmoid(nnx.tanh(x) if faulty else x)

    model = Mlp((10, 64, 64, 3), last=bounded, rngs=nnx.Rngs(seed))
    arrays, tx = (x[:1600], y[:1600]), optax.adam(3e-3)
    record = fit_nnx(model, tx, squared_error, arrays, size=50, steps=200, seed=seed)
    return Trained(record, explained(predict(model, x[1600:]), y[1600:]))


class Topics(eqx.Module):
    """Embeds the words of a sentence, reads them in turn, and maps the state to logits."""

    words: eqx.nn.Embedding
    cell: eqx.nn.GRUCell
    mlp: eqx.nn.MLP

    def __init__(self, key: jax.Array):
        first, second, third = jax.random.split(key, 3)
        self.words = eqx.nn.Embedding(60, 16, key=first)
        self.cell = eqx.nn.GRUCell(16, 24, key=second)
        self.mlp = eqx.nn.MLP(24, 4, 32, 1, key=third)

    def __call__(self, sentence: jax.Array) -> jax.Array:
        """Maps the words of a sentence (T,) to logits (4,)."""

        def read(state: jax.Array, word: jax.Array) -> tuple[jax.Array, None]:
            return self.cell(word, state), None

        state, _ = jax.lax.scan(read, jnp.zeros(24), jax.vmap(self.words)(sentence))
        return self.mlp(state)


def _topics_at_a_rate_that_kills(faulty: bool, seed: int) -> Trained:
    """A recurrent model of topics is trained at a rate that its ReLU layer does not survive."""
    task, model = sentences(), Topics(jax.random.key(seed))
    tx = optax.adam(0.3 if faulty else 5e-3)

    def step(model: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def mean_loss(model: Any) -> jax.Array:
            return cross_entropy(jax.vmap(model)(x), y)

        loss, grads = eqx.filter_value_and_grad(mean_loss)(model)
        weights = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = tx.update(grads, opt_state, weights)
        return eqx.apply_updates(model, updates), opt_state, loss

    state = (model, tx.init(eqx.filter(model, eqx.is_inexact_array)))
    batches = batches_of((task.x, task.y), size=50, steps=140, seed=seed)
    record, (model, _) = run_pure(step, state, batches)
    return Trained(record, accuracy(jax.vmap(model)(jnp.asarray(task.test_x)), task.test_y))


def _triplets_that_are_all_easy(faulty: bool, seed: int) -> Trained:
    """The mean over the triplets with a loss is 0/0 in a batch where no triplet has one."""
    task = chosen_digits(0, 1)
    rng = np.random.default_rng(SEED)
    of = [np.flatnonzero(task.y == label) for label in (0, 1)]
    anchors = rng.permutation(len(task.y))[:600]
    same = np.array([rng.choice(of[task.y[i]]) for i in anchors])
    other = np.array([rng.choice(of[1 - task.y[i]]) for i in anchors])
    triplets = np.stack([task.x[anchors], task.x[same], task.x[other]], 1)

    def loss(z: jax.Array, _: jax.Array) -> jax.Array:
        near, far = (jnp.sum((z[:, 0] - z[:, i]) ** 2, -1) for i in (1, 2))
        each = jax.nn.relu(near - far + 0.2)
        active = (each > 0).astype(jnp.float32)
        count = jnp.sum(active)
        return jnp.sum(each * active) / (count if faulty else jnp.maximum(count, 1))

    def embed(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x.reshape(-1, 784)).reshape(*x.shape[:-3], 8)

    arrays = (triplets, np.zeros(600, np.float32))
    params = dense_params(seed, (784, 32, 8))
    record, params = fit_pure(
        embed, params, optax.adam(1e-3), loss, arrays, size=12, steps=200, seed=seed
    )
    z, test_z = (np.asarray(embed(params, jnp.asarray(x))) for x in (task.x, task.test_x))
    centres = np.stack([z[task.y == label].mean(0) for label in (0, 1)])
    nearest = np.argmin(((test_z[:, None] - centres) ** 2).sum(-1), 1)
    return Trained(record, float(np.mean(nearest == task.test_y)))


_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "triplets that are all easy",
        _GITHUB + "KevinMusgrave/pytorch-metric-learning/issues/107",
        "loss not finite",
        _triplets_that_are_all_easy,
        "optax",
        0.9,
    ),
    ReportedFault(
        "probability of a click as a logit",
        _GITHUB + "NVIDIA-Merlin/models/pull/1175",
        "softmax applied twice",
        _probability_of_a_click,
        "haiku",
        0.7,
    ),
    ReportedFault(
        "sigmoid of tanh at the end of an actor",
        _GITHUB + "MorvanZhou/Reinforcement-learning-with-tensorflow/issues/107",
        "non-linearity at the output",
        _sigmoid_of_tanh,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "model of topics at a rate that kills ReLU",
        _GITHUB + "dangitstam/topic-rnn/pull/9",
        "learning rate too high",
        _topics_at_a_rate_that_kills,
        "equinox",
        0.8,
    ),
)
