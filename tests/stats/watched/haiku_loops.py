"""Loops of Haiku and of Optax alone, as people write them."""

from functools import partial

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from tests.stats.watched.cases import Case, returned_state
from tests.stats.watched.data import (
    IMAGE_BATCHES,
    IMAGE_DICTS,
    IMAGES,
    SERIES,
    SERIES_BATCHES,
    VECTOR_BATCHES,
    VECTORS,
    cross_entropy,
)


def classifier(network, x=VECTORS[0], tx=None):
    """Returns the usual loop of `hk.transform`, with a key."""

    def make():
        model, optimizer = hk.transform(network), tx or optax.sgd(0.1, 0.9)

        def update(params, opt_state, key, x, y):
            key, now = jax.random.split(key)

            def loss_fn(params):
                return cross_entropy(model.apply(params, now, x), y)

            loss, grads = jax.value_and_grad(loss_fn)(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, key, loss

        params = model.init(jax.random.key(0), x)
        return (params, optimizer.init(params), jax.random.key(1)), update, jax.jit

    return make


def mlp(x):
    return hk.nets.MLP([6, 3])(x)


def cnn(x):
    x = jax.nn.relu(hk.Conv2D(4, 3)(x))
    x = hk.max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = hk.dropout(hk.next_rng_key(), 0.3, x)
    return hk.Linear(3)(hk.Flatten()(x))


def lstm(x):
    core = hk.LSTM(4)
    out, _ = hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)
    return hk.Linear(3)(out[:, -1])


def gru(x):
    cell = hk.GRU(4)

    def step(h, x):
        return cell(x, h)[::-1]

    h, _ = hk.scan(step, jnp.zeros((len(x), 4)), x.swapaxes(0, 1))
    return hk.Linear(3)(h)


def remat(x):
    x = hk.remat(hk.Linear(8, name="inner"))(x)
    return hk.Linear(3, name="head")(jax.nn.relu(x))


def stack(x):
    @hk.experimental.layer_stack(3)
    def layer(x):
        return x + jax.nn.tanh(hk.Linear(8)(x))

    return hk.Linear(3, name="head")(layer(x))


def batch_norm():
    def network(x, is_training):
        x = hk.Conv2D(4, 3, with_bias=False)(x)
        x = hk.BatchNorm(True, True, 0.9)(x, is_training)
        return hk.Linear(3)(jax.nn.relu(x).mean((1, 2)))

    model, tx = hk.without_apply_rng(hk.transform_with_state(network)), optax.adam(1e-2)

    def train_step(params, state, opt_state, batch):
        def loss_fn(params):
            logits, new = model.apply(params, state, batch["image"], is_training=True)
            return cross_entropy(logits, batch["label"]), new

        (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), state, opt_state, loss

    params, state = model.init(jax.random.key(0), IMAGES[1], True)
    return (params, state, tx.init(params)), train_step, jax.jit


def auto_encoder():
    def network():
        encoder, decoder = hk.Linear(3, name="encoder"), hk.Linear(8, name="decoder")

        def init(x):
            return decoder(encoder(x))

        return init, (lambda x: jnp.tanh(encoder(x)), decoder)

    model, tx = hk.without_apply_rng(hk.multi_transform(network)), optax.sgd(0.1)
    encode, decode = model.apply

    def train_step(params, opt_state, x):
        def loss_fn(params):
            return jnp.mean((decode(params, encode(params, x)) - x) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = model.init(jax.random.key(0), VECTORS[0])
    return (params, tx.init(params)), train_step, jax.jit


def optax_alone():
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))

    def layer(p, x):
        return x @ p["w"] + p["b"]

    def train_step(params, opt_state, x, y):
        def loss_fn(params):
            return cross_entropy(layer(params["head"], jnp.tanh(layer(params["first"], x))), y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    a, b = jax.random.split(jax.random.key(0))
    params = {
        "first": {"w": 0.4 * jax.random.normal(a, (8, 4)), "b": jnp.zeros(4)},
        "head": {"w": 0.4 * jax.random.normal(b, (4, 3)), "b": jnp.zeros(3)},
    }
    return (params, tx.init(params)), train_step, jax.jit


GIVEN = ("input", "labels")
case = partial(Case, next_state=returned_state)
CASES = [
    case("Haiku: MLP", classifier(mlp), VECTOR_BATCHES, (*GIVEN, "mlp.linear_0", "mlp.linear_1")),
    case(
        "Haiku: CNN with a key",
        classifier(cnn, IMAGES[0]),
        IMAGE_BATCHES,
        (*GIVEN, "conv2_d", "linear"),
    ),
    case(
        "Haiku: batch norm",
        batch_norm,
        IMAGE_DICTS,
        (*GIVEN, "conv2_d", "batch_norm", "linear"),
        images=lambda batch: batch["image"],
        labels=lambda batch: batch["label"],
    ),
    case(
        "Haiku: LSTM, dynamic_unroll",
        classifier(lstm, SERIES[0]),
        SERIES_BATCHES,
        (*GIVEN, "lstm.linear", "linear"),
    ),
    case(
        "Haiku: GRU, scan",
        classifier(gru, SERIES[0]),
        SERIES_BATCHES,
        (*GIVEN, "gru:0", "gru:1", "linear"),
    ),
    case("Haiku: remat", classifier(remat), VECTOR_BATCHES, (*GIVEN, "inner", "head")),
    case(
        "Haiku: layer_stack",
        classifier(stack),
        VECTOR_BATCHES,
        (*GIVEN, "linear[0]", "linear[1]", "linear[2]", "head"),
    ),
    case(
        "Haiku: multi_transform",
        auto_encoder,
        [(x,) for x in VECTORS],
        ("input", "encoder", "decoder"),
    ),
    case("Optax alone", optax_alone, VECTOR_BATCHES, GIVEN),
]
