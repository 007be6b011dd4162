"""Further reported faults, for measuring: losses, gradients or parameters that are not finite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    Linear,
    LinenMlp,
    Mlp,
    cross_entropy,
    dense,
    dense_params,
    fit_linen,
    fit_nnx,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    binary_accuracy,
    explained,
    houses,
    sentences,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure

# --- loss not finite -------------------------------------------------------------------------


def _time_to_failure(faulty: bool, seed: int) -> Trained:
    """The logarithm of a Weibull probability of a time is taken, which is 0 for a sharp peak."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(2400, 8)).astype(np.float32)
    scale = 6 + np.tanh(x[:, 0] + x[:, 1] * x[:, 2]) + 0.5 * np.sin(2 * x[:, 3])
    time = np.floor(np.exp(scale) * rng.weibull(6, size=2400)).astype(np.float32)
    time[rng.permutation(2000)[:10]] = 0  # failed at once
    seen = (rng.random(2400) < 0.8).astype(np.float32)
    least, tx = 0.0 if faulty else 1e-6, optax.adam(5e-3)

    def weibull(params: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = dense(params, x)
        return jnp.exp(5 + outputs[:, 0]), jax.nn.softplus(1 + outputs[:, 1])

    def step(params: Any, opt_state: Any, x: jax.Array, time: jax.Array, seen: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            a, b = weibull(params, x)
            hazard0, hazard1 = ((t / a) ** b for t in (time + 1e-3, time + 1))
            return -jnp.mean(seen * jnp.log(jnp.exp(hazard1 - hazard0) - 1 + least) - hazard1)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = dense_params(seed, (8, 48, 48, 2))
    params[-1]["w"] *= 0.1
    batches = batches_of((x[:2000], time[:2000], seen[:2000]), size=50, steps=300, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    found, _ = weibull(params, jnp.asarray(x[2000:]))
    return Trained(record, explained(jnp.log(found), scale[2000:]))


def _batch_without_deaths(faulty: bool, seed: int) -> Trained:
    """A likelihood of survival is divided by the number of deaths, which is 0 in small batches."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(2400, 6)).astype(np.float32)
    risk = x[:, 0] + np.maximum(x[:, 1], 0) - x[:, 2]
    time = rng.exponential(np.exp(-risk)).astype(np.float32)
    dead = (time < np.quantile(time, 0.25)).astype(np.float32)  # the others are still alive
    y = np.stack([np.minimum(time, np.quantile(time, 0.25)), dead], 1).astype(np.float32)

    def likelihood(scores: jax.Array, y: jax.Array) -> jax.Array:
        order = jnp.argsort(-y[:, 0])
        scores, dead = scores[order, 0], y[order, 1]
        deaths = jnp.sum(dead) if faulty else jnp.maximum(jnp.sum(dead), 1)
        return -jnp.sum((scores - jax.lax.cumlogsumexp(scores)) * dead) / deaths

    net, tx = LinenMlp((32, 32, 1)), optax.adam(5e-3)
    arrays = (x[:2000], y[:2000])
    record, trained = fit_linen(net, tx, likelihood, arrays, size=12, steps=300, seed=seed)
    scores = trained(x[2000:])
    earlier = time[2000:, None] < time[None, 2000:]
    # The share of pairs of which the one with the higher score dies earlier.
    return Trained(record, float(np.mean((scores > scores.T)[earlier])))


# --- gradients not finite --------------------------------------------------------------------


def _mean_without_gaps(faulty: bool, seed: int) -> Trained:
    """Measurements that are missing are left out by a mean that skips what is not a number."""
    rng = np.random.default_rng(SEED)
    x = rng.uniform(-1, 1, (1900, 5)).astype(np.float32)
    y = np.stack([np.sin(3 * x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3], x[:, 4] ** 2 - x[:, 0]], 1)
    y = (y / y.std(0)).astype(np.float32)
    shown = y.copy()
    shown[rng.random(y.shape) < 0.02] = np.nan

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        if faulty:
            return jnp.nanmean(jnp.square(outputs - y))
        known = jnp.isfinite(y)
        return jnp.sum(jnp.square(outputs - jnp.where(known, y, outputs))) / jnp.sum(known)

    model = Mlp((5, 48, 48, 3), activation=nnx.tanh, rngs=nnx.Rngs(seed))
    arrays = (x[:1500], shown[:1500])
    record = fit_nnx(model, optax.adamw(5e-3), loss, arrays, size=50, steps=250, seed=seed)
    return Trained(record, explained(predict(model, x[1500:]), y[1500:]))


def _words_outside_the_embedding(faulty: bool, seed: int) -> Trained:
    """Padding is a word outside the embedding, of which a mask takes away the values alone."""
    task = sentences()
    rng = np.random.default_rng(SEED)
    lengths = rng.integers(7, 13, size=(len(task.x), 1))
    words = np.where(np.arange(12) < lengths, task.x, 99).astype(np.int32)

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.embed, self.norm = nnx.Embed(60, 48, rngs=rngs), nnx.BatchNorm(48, rngs=rngs)
            self.out = Linear(48, 4, rngs=rngs)

        def __call__(self, words: jax.Array) -> jax.Array:
            mask = (words < 60)[..., None]
            x = self.embed(words)
            x = self.norm(x if faulty else jnp.where(mask, x, 0.0), mask=mask)
            return self.out(jnp.max(x, 1, where=mask, initial=-10.0))

    model = Net(nnx.Rngs(seed))
    arrays = (words, task.y)
    record = fit_nnx(model, optax.adam(2e-2), cross_entropy, arrays, size=50, steps=250, seed=seed)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


# --- parameters not finite -------------------------------------------------------------------


def _half_precision_and_adam(faulty: bool, seed: int) -> Trained:
    """Words that a batch lacks have gradients of 0, which Adam divides by 0 in 16 bits."""
    task = sentences()
    of_params = jnp.float16 if faulty else jnp.float32

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            kinds: dict[str, Any] = {"dtype": jnp.float16, "param_dtype": of_params, "rngs": rngs}
            self.embed = nnx.Embed(60, 24, **kinds)
            self.hidden, self.out = nnx.Linear(24, 32, **kinds), nnx.Linear(32, 4, **kinds)

        def __call__(self, words: jax.Array) -> jax.Array:
            return self.out(nnx.relu(self.hidden(self.embed(words).sum(1))))

    def train_step(model: Any, optimizer: Any, words: jax.Array, topic: jax.Array) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            return cross_entropy(model(words).astype(jnp.float32), topic)

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return {"loss": loss}

    model = Net(nnx.Rngs(seed))
    batches = batches_of((task.x, task.y), size=16, steps=250, seed=seed)
    record = run_nnx(train_step, model, optax.adam(1e-2), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


class _Moments(NamedTuple):
    time: jax.Array
    mean: Any
    square: Any


def adamw_from(time: int, rate: float) -> optax.GradientTransformation:
    """Returns an AdamW of one's own, whose first update is that of a time; it should be 1."""

    def init(params: Any) -> _Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return _Moments(jnp.asarray(time), zeros, zeros)

    def update(grads: Any, state: _Moments, params: Any = None) -> tuple[Any, _Moments]:
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.mean, grads)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, state.square, grads)

        def moved(m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            m, v = m / (1 - 0.9**state.time), v / (1 - 0.999**state.time)
            return -rate * (m / (jnp.sqrt(v) + 1e-5) + 1e-4 * p)

        return jax.tree.map(moved, mean, square, params), _Moments(state.time + 1, mean, square)

    return optax.GradientTransformation(init, update)


def _adamw_from_time_zero(faulty: bool, seed: int) -> Trained:
    """The bias of the moments is corrected for time 0 first, which divides by 0."""
    task = houses()
    y, test_y = ((y > 0).astype(np.int32) for y in (task.y, task.test_y))

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(jnp.logaddexp(0, logits[:, 0]) - y * logits[:, 0])

    tx = adamw_from(0 if faulty else 1, 3e-3)
    record, net = fit_linen(
        LinenMlp((32, 32, 1), jnp.tanh), tx, loss, (task.x, y), size=64, steps=250, seed=seed
    )
    return Trained(record, binary_accuracy(net(task.test_x), test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "time to failure with a sharp peak",
        "https://github.com/ragulpr/wtte-rnn/issues/39",
        "loss not finite",
        _time_to_failure,
        "optax",
        0.7,
    ),
    ReportedFault(
        "batch without deaths",
        "https://github.com/havakv/pycox/issues/124",
        "loss not finite",
        _batch_without_deaths,
        "linen",
        0.7,
    ),
    ReportedFault(
        "mean that skips missing measurements",
        "https://github.com/BLAST-AI-ML/synapse/pull/237",
        "gradients not finite",
        _mean_without_gaps,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "words outside the embedding",
        "https://github.com/jax-ml/jax/issues/26328",
        "gradients not finite",
        _words_outside_the_embedding,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "half precision and Adam",
        "https://github.com/google-deepmind/optax/issues/1754",
        "parameters not finite",
        _half_precision_and_adam,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "AdamW from time zero",
        "https://github.com/tracel-ai/burn/issues/834",
        "parameters not finite",
        _adamw_from_time_zero,
        "linen",
        0.8,
    ),
)
