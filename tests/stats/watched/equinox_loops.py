"""Models and loops of Equinox, as people write them."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from tests.stats.watched.cases import Case, returned_state
from tests.stats.watched.data import (
    IMAGES,
    LABELS,
    SERIES_BATCHES,
    VECTOR_BATCHES,
    cross_entropy,
)


class CNN(eqx.Module):
    layers: list

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.layers = [
            eqx.nn.Conv2d(1, 3, kernel_size=3, key=a),
            eqx.nn.MaxPool2d(kernel_size=2),
            jax.nn.relu,
            jnp.ravel,
            eqx.nn.Linear(75, 6, key=b),
            jax.nn.sigmoid,
            eqx.nn.Linear(6, 3, key=c),
            jax.nn.log_softmax,
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Normalised(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, 3, 3, key=a)
        self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
        self.head = eqx.nn.Linear(3, 3, key=b)

    def __call__(self, x, state):
        x = self.conv(x)
        x, state = self.norm(x, state)
        return self.head(jax.nn.relu(x).mean((1, 2))), state


class Dropping(eqx.Module):
    first: eqx.nn.Linear
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(8, 6, key=a), eqx.nn.Linear(6, 3, key=b)
        self.drop = eqx.nn.Dropout(0.5)

    def __call__(self, x, key):
        return self.last(self.drop(jax.nn.relu(self.first(x)), key=key))


class Recurrent(eqx.Module):
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.cell, self.head = eqx.nn.GRUCell(8, 4, key=a), eqx.nn.Linear(4, 3, key=b)

    def __call__(self, xs):
        def step(h, x):
            return self.cell(x, h), None

        h, _ = jax.lax.scan(step, jnp.zeros(4), xs)
        return self.head(h)


class Block(eqx.Module):
    linear: eqx.nn.Linear

    def __init__(self, key):
        self.linear = eqx.nn.Linear(8, 8, key=key)

    def __call__(self, x):
        return x + jnp.tanh(self.linear(x))


class Stacked(eqx.Module):
    blocks: Block
    head: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.blocks = eqx.filter_vmap(Block)(jax.random.split(a, 3))
        self.head = eqx.nn.Linear(8, 3, key=b)

    def __call__(self, x):
        dynamic, static = eqx.partition(self.blocks, eqx.is_array)

        def step(x, block):
            return eqx.combine(block, static)(x), None

        x, _ = jax.lax.scan(step, x, dynamic)
        return self.head(x)


class Checkpointed(eqx.Module):
    first: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(8, 6, key=a), eqx.nn.Linear(6, 3, key=b)

    def __call__(self, x):
        return self.last(jax.nn.relu(eqx.filter_checkpoint(self.first)(x)))


def mean_loss(model, x, y):
    return cross_entropy(jax.vmap(model)(x), y)


def log_probabilities(model, x, y):
    predicted = jax.vmap(model)(x)
    return -jnp.mean(jnp.take_along_axis(predicted, y[:, None], axis=1))


def classifier(make_model, loss_fn=mean_loss):
    """Returns the usual loop."""

    def make():
        model, tx = make_model(jax.random.key(0)), optax.adamw(1e-2)

        def make_step(model, opt_state, x, y):
            loss, grads = eqx.filter_value_and_grad(loss_fn)(model, x, y)
            updates, opt_state = tx.update(grads, opt_state, eqx.filter(model, eqx.is_array))
            return eqx.apply_updates(model, updates), opt_state, loss

        opt_state = tx.init(eqx.filter(model, eqx.is_array))
        return (model, opt_state), make_step, eqx.filter_jit

    return make


def batch_norm():
    model, state = eqx.nn.make_with_state(Normalised)(jax.random.key(0))
    tx = optax.adam(1e-2)

    def compute_loss(model, state, xs, ys):
        batched = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        logits, state = batched(xs, state)
        return cross_entropy(logits, ys), state

    def make_step(model, state, opt_state, xs, ys):
        grads_of = eqx.filter_value_and_grad(compute_loss, has_aux=True)
        (loss, state), grads = grads_of(model, state, xs, ys)
        updates, opt_state = tx.update(grads, opt_state)
        return eqx.apply_updates(model, updates), state, opt_state, loss

    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    return (model, state, opt_state), make_step, eqx.filter_jit


def dropout():
    model, tx = Dropping(jax.random.key(0)), optax.sgd(0.1)

    def make_step(model, opt_state, key, x, y):
        key, now = jax.random.split(key)

        @eqx.filter_value_and_grad
        def loss_fn(model):
            logits = jax.vmap(model)(x, jax.random.split(now, len(x)))
            return cross_entropy(logits, y)

        loss, grads = loss_fn(model)
        updates, opt_state = tx.update(grads, opt_state, model)  # with its functions
        return eqx.apply_updates(model, updates), opt_state, key, loss

    opt_state = tx.init(eqx.filter(model, eqx.is_array))
    return (model, opt_state, jax.random.key(1)), make_step, eqx.filter_jit


def partitioned():
    model, tx = eqx.nn.MLP(8, 3, 6, 1, key=jax.random.key(0)), optax.sgd(0.1)
    params, static = eqx.partition(model, eqx.is_array)

    def make_step(params, opt_state, x, y):
        def loss_fn(params):
            return cross_entropy(jax.vmap(eqx.combine(params, static))(x), y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return (params, tx.init(params)), make_step, partial(jax.jit, donate_argnums=())


GIVEN = ("input", "labels")
IMAGE_BATCHES = list(zip(IMAGES.transpose(0, 1, 4, 2, 3), LABELS, strict=True))
vectors = partial(Case, batches=VECTOR_BATCHES, next_state=returned_state)
images = partial(Case, batches=IMAGE_BATCHES, next_state=returned_state)
CASES = [
    images(
        "Equinox: CNN",
        classifier(CNN, log_probabilities),
        layers=(*GIVEN, "layers.0", "layers.4", "layers.6"),
    ),
    images("Equinox: batch norm with state", batch_norm, layers=(*GIVEN, "conv", "norm", "head")),
    vectors("Equinox: dropout with keys", dropout, layers=(*GIVEN, "first", "last")),
    vectors(
        "Equinox: MLP",
        classifier(lambda key: eqx.nn.MLP(8, 3, 6, 2, key=key)),
        layers=(*GIVEN, "layers.0", "layers.1", "layers.2"),
    ),
    vectors(
        "Equinox: GRU, scan",
        classifier(Recurrent),
        batches=SERIES_BATCHES,
        layers=(*GIVEN, "cell", "head"),
    ),
    vectors(
        "Equinox: stacked layers, scan",
        classifier(Stacked),
        layers=(*GIVEN, *(f"blocks[{i}].linear" for i in range(3)), "head"),
    ),
    vectors("Equinox: checkpoint", classifier(Checkpointed), layers=(*GIVEN, "first", "last")),
    vectors("Equinox: partition, jax.jit", partitioned, layers=(*GIVEN, "layers.0", "layers.1")),
]
