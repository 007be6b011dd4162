"""Further reported faults of the outputs, for measuring: their shapes and their non-linearities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

from experiments.diagnosis_study.reported.data_networks import (
    LinenConv,
    LinenDense,
    cross_entropy,
    dense,
    dense_params,
    fit_linen,
    fit_pure,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    digits,
    explained,
    recalled,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure

# --- shapes of output and target differ ------------------------------------------------------


def _one_value_for_the_batch(faulty: bool, seed: int) -> Trained:
    """The values of the actions taken are summed over the batch too: one number for all targets."""
    rng = np.random.default_rng(SEED)
    states = rng.normal(size=(2800, 6)).astype(np.float32)
    values = states @ rng.normal(size=(6, 4)) + np.sin(2 * states[:, :4])
    actions = np.eye(4, dtype=np.float32)[rng.integers(4, size=2800)]
    returns = (np.sum(values * actions, 1) + 0.1 * rng.normal(size=2800)).astype(np.float32)
    tx = optax.rmsprop(3e-3)

    def learn(
        params: Any, opt_state: Any, state: jax.Array, action: jax.Array, target: jax.Array
    ) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            q = jnp.sum(dense(params, state) * action, None if faulty else 1)
            return jnp.mean(jnp.square(target - q))

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    params = dense_params(seed, (6, 48, 48, 4))
    memory = (states[:2400], actions[:2400], returns[:2400])
    batches = batches_of(memory, size=64, steps=250, seed=seed)
    record, (params, _) = run_pure(learn, (params, tx.init(params)), batches)
    q = dense(params, jnp.asarray(states[2400:]))
    return Trained(record, accuracy(q, values[2400:].argmax(1)))


def _forecast_of_one_step(faulty: bool, seed: int) -> Trained:
    """Forecasts of a single step (64, 1) are compared with targets (64,) of several series."""
    rng = np.random.default_rng(SEED)
    periods, phases = rng.uniform(8, 30, (2400, 2, 1)), rng.uniform(0, 2 * np.pi, (2400, 2, 1))
    series = np.sin(2 * np.pi * np.arange(33) / periods + phases).sum(1).astype(np.float32)
    x, y = series[:, :32, None], series[:, 32]

    class Forecast(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = linen.gelu(LinenConv(16, (5,), strides=2)(x))
            x = linen.LayerNorm()(x).reshape(len(x), -1)
            return LinenDense(1)(linen.gelu(LinenDense(32)(x)))

    def loss(forecast: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((forecast - (y if faulty else y.reshape(forecast.shape))) ** 2)

    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(5e-3))
    arrays = (x[:2000], y[:2000])
    record, net = fit_linen(Forecast(), tx, loss, arrays, size=64, steps=250, seed=seed)
    return Trained(record, explained(net(x[2000:]), y[2000:]))


# --- softmax applied twice -------------------------------------------------------------------


def _softmax_of_actions(faulty: bool, seed: int) -> Trained:
    """A recurrent network for short films ends with a softmax, and the loss applies another."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(6, size=1500).astype(np.int32)
    angle = 2 * np.pi * y / 6
    start, time = rng.uniform(4, 8, (1500, 1, 2)), np.arange(5)[:, None] - 2
    centre = start + 0.9 * time * np.stack([np.cos(angle), np.sin(angle)], 1)[:, None]
    offset = np.stack(np.mgrid[:12, :12], -1) - centre[:, :, None, None]
    films = np.exp(-np.sum(offset**2, -1) / 3) + 0.1 * rng.normal(size=(1500, 5, 12, 12))
    films = films.astype(np.float32)[..., None]

    class Net(linen.Module):
        @linen.compact
        def __call__(self, films: jax.Array) -> jax.Array:
            frames = films.reshape(-1, 12, 12, 1)
            frames = linen.relu(LinenConv(8, (3, 3), strides=2)(frames))
            frames = linen.relu(LinenDense(32)(frames.reshape(*films.shape[:2], -1)))
            logits = LinenDense(6)(linen.RNN(linen.GRUCell(32))(frames)[:, -1])
            return linen.softmax(logits) if faulty else logits

    tx = optax.sgd(0.02, momentum=0.9)
    arrays = (films[:1200], y[:1200])
    record, net = fit_linen(Net(), tx, cross_entropy, arrays, size=32, steps=150, seed=seed)
    return Trained(record, accuracy(net(films[1200:]), y[1200:]))


def _sigmoid_of_anomalies(faulty: bool, seed: int) -> Trained:
    """A network for rare anomalies in sequences ends with a sigmoid, as does its loss."""
    rng = np.random.default_rng(SEED)
    events = rng.integers(2, 24, size=(3000, 14)).astype(np.int32)
    y = (rng.random(3000) < 0.15).astype(np.float32)
    events[np.arange(3000), rng.integers(14, size=3000)] = rng.integers(2, size=3000)
    both = np.stack([rng.permutation(14)[:2] for _ in range(3000)])[y > 0]
    events[np.flatnonzero(y)[:, None], both] = [0, 1]

    class Net(linen.Module):
        @linen.compact
        def __call__(self, events: jax.Array) -> jax.Array:
            x = linen.Embed(24, 16)(events)
            query, key, value = jnp.split(LinenDense(48)(x), 3, -1)
            x = x + linen.softmax(query @ key.swapaxes(1, 2) / 4) @ value
            x = linen.gelu(LinenDense(32)(x.mean(1)))
            logit = LinenDense(1)(x)[:, 0]
            return linen.sigmoid(logit) if faulty else logit

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(jnp.logaddexp(0, logits) - y * logits)

    arrays = (events[:2500], y[:2500])
    record, net = fit_linen(Net(), optax.adam(3e-3), loss, arrays, size=40, steps=200, seed=seed)
    return Trained(record, recalled(net(events[2500:]) - 0.5 * faulty, y[2500:]))


# --- non-linearity at the output -------------------------------------------------------------


def _relu_of_a_recurrent_network(faulty: bool, seed: int) -> Trained:
    """The times of padded peptides are predicted with a ReLU at the output, which is 0 for all."""
    rng = np.random.default_rng(SEED)
    padded = np.arange(12) >= rng.integers(6, 10, size=(2000, 1))
    peptides = np.where(padded, 0, rng.integers(1, 21, size=(2000, 12))).astype(np.int32)
    weights = np.append(0, rng.normal(size=20))
    y = weights[peptides].sum(1) + 0.5 * np.abs(weights)[peptides[:, 0]]
    y = ((y - y.min()) / (y.max() - y.min())).astype(np.float32)

    class Net(linen.Module):
        @linen.compact
        def __call__(self, peptides: jax.Array) -> jax.Array:
            x = linen.RNN(linen.OptimizedLSTMCell(32))(linen.Embed(21, 16)(peptides))[:, -1]
            x = LinenDense(1)(linen.relu(LinenDense(16)(x)))
            return linen.relu(x) if faulty else x

    arrays = (peptides[:1600], y[:1600])
    # With these parameters, the last layer is below 0 for all peptides.
    record, net = fit_linen(
        Net(), optax.adam(1e-2), squared_error, arrays, size=40, steps=200, seed=seed + 2
    )
    return Trained(record, explained(net(peptides[1600:]), y[1600:]))


def _relu_after_every_layer(faulty: bool, seed: int) -> Trained:
    """A function makes a layer with a ReLU, the last layer too; weights and biases about 0.1."""
    # With these parameters, half of the outputs are 0 for nearly all images.
    task, rng = digits(), np.random.default_rng(seed + 5)
    shapes = {"conv1": (5, 5, 1, 8), "conv2": (5, 5, 8, 16), "fc1": (784, 48), "fc2": (48, 10)}
    params: Any = {
        name: {
            "w": jnp.asarray(np.clip(rng.normal(size=shape), -2, 2) * 0.1, jnp.float32),
            "b": jnp.full(shape[-1], 0.1),
        }
        for name, shape in shapes.items()
    }

    def conv(x: jax.Array, layer: Any) -> jax.Array:
        names = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, layer["w"], (2, 2), "SAME", dimension_numbers=names)
        return jax.nn.relu(x + layer["b"])

    def network(params: Any, x: jax.Array) -> jax.Array:
        x = conv(conv(x, params["conv1"]), params["conv2"]).reshape(len(x), -1)
        x = jax.nn.relu(x @ params["fc1"]["w"] + params["fc1"]["b"])
        x = x @ params["fc2"]["w"] + params["fc2"]["b"]
        return jax.nn.relu(x) if faulty else x

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.sum(jax.nn.one_hot(y, 10) * jax.nn.log_softmax(logits), -1))

    arrays = (task.x, task.y)
    record, params = fit_pure(
        network, params, optax.adam(1e-3), loss, arrays, size=32, steps=180, seed=seed
    )
    return Trained(record, accuracy(network(params, jnp.asarray(task.test_x)), task.test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "one value for the batch",
        "https://github.com/simoninithomas/Deep_reinforcement_learning_Course/issues/51",
        "shapes of output and target differ",
        _one_value_for_the_batch,
        "optax",
        0.7,
    ),
    ReportedFault(
        "forecast of one step",
        "https://github.com/jsboige/CoursIA/pull/926",
        "shapes of output and target differ",
        _forecast_of_one_step,
        "linen",
        0.8,
    ),
    ReportedFault(
        "softmax of actions in films",
        "https://github.com/doronharitan/human_activity_recognition_LRCN/issues/4",
        "softmax applied twice",
        _softmax_of_actions,
        "linen",
        0.75,
    ),
    ReportedFault(
        "sigmoid of rare anomalies",
        "https://github.com/YXNTU/GeneralDyG/issues/6",
        "softmax applied twice",
        _sigmoid_of_anomalies,
        "linen",
        0.8,
    ),
    ReportedFault(
        "ReLU of a recurrent network",
        "https://github.com/ProteomicsML/ProteomicsML/pull/203",
        "non-linearity at the output",
        _relu_of_a_recurrent_network,
        "linen",
        0.7,
    ),
    ReportedFault(
        "ReLU after every layer",
        "https://github.com/martinwicke/tf-dev-summit-tensorboard-tutorial/issues/3",
        "non-linearity at the output",
        _relu_after_every_layer,
        "optax",
        0.75,
    ),
)
