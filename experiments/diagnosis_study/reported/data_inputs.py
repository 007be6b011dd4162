"""Reported faults: inputs that are not normalised, or not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    Conv,
    Linear,
    LinenDense,
    LinenMlp,
    Mlp,
    UNet,
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
    houses,
    overlap,
    strokes,
    tones,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure

# --- inputs not normalised -------------------------------------------------------------------


def _raw_pixels(faulty: bool, seed: int) -> Trained:
    """Pixels of 0 to 255 go into fully connected layers."""
    task, scale = digits(), np.float32(255 if faulty else 1)
    model = Mlp((784, 128, 128, 10), rngs=nnx.Rngs(seed))
    arrays = (task.x * scale, task.y)
    record = fit_nnx(model, optax.adam(1e-3), cross_entropy, arrays, size=128, steps=200, seed=seed)
    return Trained(record, accuracy(predict(model, task.test_x * scale), task.test_y))


def _own_units(faulty: bool, seed: int) -> Trained:
    """Features of houses have units of their own, such as counts, years and degrees."""
    task = houses()
    scale = np.array([1.9, 12, 2.5, 0.5, 1100, 10, 2.1, 2], np.float32)
    mean = np.array([4, 29, 5.4, 1.1, 1400, 3, 36, -120], np.float32)

    class WideAndDeep(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            hidden = linen.relu(LinenDense(30)(linen.relu(LinenDense(30)(x))))
            return LinenDense(1)(jnp.concatenate([x, hidden], -1))[:, 0]

    def features(x: Any) -> Any:
        return x * scale + mean if faulty else x

    net = WideAndDeep()
    params = net.init(jax.random.key(seed), task.x[:2])
    record, params = fit_pure(
        net.apply,
        params,
        optax.adam(3e-3),
        squared_error,
        (features(task.x), task.y),
        size=32,
        steps=200,
        seed=seed,
    )
    return Trained(record, explained(net.apply(params, features(task.test_x)), task.test_y))


def _survival(faulty: bool, seed: int) -> Trained:
    """Features in the ten thousands enter a network for survival times, with Cox' likelihood."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(2400, 10)).astype(np.float32)
    risk = x[:, 0] - x[:, 1] + np.abs(x[:, 2])
    time = rng.exponential(np.exp(-risk)).astype(np.float32)
    event = rng.random(len(x)) < 0.8
    shown = x * np.logspace(0, 4, 10, dtype=np.float32) if faulty else x
    tx = optax.sgd(0.05)

    def step(params: Any, opt_state: Any, x: jax.Array, time: jax.Array, event: jax.Array) -> Any:
        def negative_likelihood(params: Any) -> jax.Array:
            scores = dense(params, x)[:, 0][jnp.argsort(-time)]
            at_risk = jax.lax.cumlogsumexp(scores)
            return -jnp.sum((scores - at_risk) * event[jnp.argsort(-time)]) / len(time)

        loss, grads = jax.value_and_grad(negative_likelihood)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = dense_params(seed, (10, 32, 1))
    arrays = (shown[:2000], time[:2000], event[:2000].astype(np.float32))
    batches = batches_of(arrays, size=64, steps=200, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    scores = np.asarray(dense(params, jnp.asarray(shown[2000:])))[:, 0]
    earlier = time[2000:, None] < time[None, 2000:]
    # The share of pairs of which the one with the higher score dies earlier.
    return Trained(record, float(np.mean((scores[:, None] > scores)[earlier])))


def _divided_twice(faulty: bool, seed: int) -> Trained:
    """Images are divided by 255 by the data set and again by an augmentation."""
    task, scale = strokes(), np.float32(1 / 255 if faulty else 1)
    model = UNet(1, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model,
        optax.sgd(0.1, momentum=0.9),
        mask_cross_entropy,
        (task.x * scale, task.y),
        size=8,
        steps=200,
        seed=seed,
    )
    return Trained(record, overlap(predict(model, task.test_x * scale), task.test_y))


# --- inputs not finite -----------------------------------------------------------------------


def _deviation_zero(faulty: bool, seed: int) -> Trained:
    """A feature that is constant, such as rain in a dry period, is divided by its deviation."""
    task = houses()
    x, test_x = (np.insert(a, 8, 0, 1) for a in (task.x, task.test_x))
    mean, deviation = x.mean(0), x.std(0)
    with np.errstate(invalid="ignore"):
        x, test_x = ((a - mean) / deviation for a in (x, test_x))
    if not faulty:
        x, test_x = np.nan_to_num(x), np.nan_to_num(test_x)
    net = LinenMlp((32, 32, 1), linen.gelu)
    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), x[:2]),
        optax.adamw(3e-3),
        squared_error,
        (x, task.y),
        size=50,
        steps=200,
        seed=seed,
    )
    return Trained(record, explained(net.apply(params, test_x), task.test_y))


def _silence(faulty: bool, seed: int) -> Trained:
    """Clips are divided by their loudest sample, which is 0 where a clip is silent."""
    task = tones()
    clips = task.x.copy()
    clips[[300, 700, 1500]] = 0
    least = 0 if faulty else 1e-3

    def normalised(x: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return (x / np.maximum(np.abs(x).max(1, keepdims=True), least))[..., None]

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv1 = Conv(1, 16, (9,), strides=4, rngs=rngs)
            self.conv2 = Conv(16, 16, (5,), strides=4, rngs=rngs)
            self.out = Linear(16, 4, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.gelu(self.conv2(nnx.gelu(self.conv1(x))))
            return self.out(x.mean(1))

    model = Net(nnx.Rngs(seed))
    arrays = (normalised(clips), task.y)
    record = fit_nnx(model, optax.adam(5e-3), cross_entropy, arrays, size=32, steps=150, seed=seed)
    return Trained(record, accuracy(predict(model, normalised(task.test_x)), task.test_y))


def _empty_spots(faulty: bool, seed: int) -> Trained:
    """A few rows of a table are empty and are read as not a number."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(1700, 20)).astype(np.float32)
    y = np.tanh(x @ rng.normal(size=(20, 6)) / 4).astype(np.float32)
    train_x = x[:1500].copy()
    train_x[[90, 610, 611, 1204]] = np.nan
    kept = np.isfinite(train_x).all(1) | faulty
    record, params = fit_pure(
        dense,
        dense_params(seed, (20, 64, 6)),
        optax.rmsprop(2e-3),
        squared_error,
        (train_x[kept], y[:1500][kept]),
        size=25,
        steps=300,
        seed=seed,
    )
    return Trained(record, explained(dense(params, jnp.asarray(x[1500:])), y[1500:]))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "pixels of 0 to 255",
        "https://stats.stackexchange.com/questions/367057/bad-performance-with-relu-activation-function-on-mnist-data-set",
        "inputs not normalised",
        _raw_pixels,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "features in their own units",
        "https://github.com/ageron/handson-ml3/pull/20",
        "inputs not normalised",
        _own_units,
        "linen",
        0.8,
    ),
    ReportedFault(
        "survival with large features",
        "https://github.com/jaredleekatzman/DeepSurv/issues/14",
        "inputs not normalised",
        _survival,
        "optax",
        0.65,
    ),
    ReportedFault(
        "images divided by 255 twice",
        "https://github.com/4uiiurz1/pytorch-nested-unet/issues/62",
        "inputs not normalised",
        _divided_twice,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "feature of deviation zero",
        "https://github.com/mllam/neural-lam/issues/136",
        "inputs not finite",
        _deviation_zero,
        "linen",
        0.8,
    ),
    ReportedFault(
        "silent clips",
        "https://github.com/bshall/hifigan/issues/4",
        "inputs not finite",
        _silence,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "empty rows",
        "https://github.com/ratschlab/DeepSpot/issues/9",
        "inputs not finite",
        _empty_spots,
        "optax",
        0.6,
    ),
)
