"""Reported faults that break a training which has learned: exploding gradients, and collapse."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name

from experiments.diagnosis_study.reported.evaluation_tasks import (
    accuracy,
    cross_entropy,
    digits,
    explained,
    linen_state,
    linen_step,
    measurements,
    next_letters,
    nnx_step,
    optax_step,
    series,
    squared_error,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure

GAIN = 2.5  # of recurrent weights: tanh keeps the state bounded, and gradients grow in time


class Recurrent(nnx.Module):
    """A recurrent layer with tanh, and a linear layer of its last state."""

    def __init__(self, rngs: nnx.Rngs):
        wide = nnx.initializers.orthogonal(GAIN)
        self.enter = nnx.Linear(1, 32, rngs=rngs)
        self.cell = nnx.Linear(32, 32, kernel_init=wide, rngs=rngs)
        self.out = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps series (N, T, 1) to outputs (N, 1)."""
        entered = jnp.swapaxes(self.enter(x), 0, 1)

        def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(self.cell(state) + x), None

        state, _ = jax.lax.scan(step, jnp.zeros((len(x), 32)), entered)
        return self.out(state)


def clipped_but_not_used(faulty: bool, seed: int) -> Trained:
    """Clips the gradients, and gives the optimiser those that are not clipped."""
    most = 0.5

    def step(
        model: Recurrent, optimizer: nnx.Optimizer[Any], x: jax.Array, y: jax.Array
    ) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: squared_error(model(x), y))(model)
        norm = jnp.sqrt(sum(jnp.sum(grad**2) for grad in jax.tree.leaves(grads)))
        factor = jnp.minimum(most / norm, 1.0)
        clipped = jax.tree.map(lambda grad: factor * grad, grads)
        optimizer.update(model, grads if faulty else clipped)
        return loss

    train, test = series(first=False)
    model = Recurrent(nnx.Rngs(seed))
    batches = batches_of(train, size=32, steps=300, seed=seed)
    record = run_nnx(step, model, optax.sgd(0.05, momentum=0.9), batches)
    return Trained(record, explained(model(test[0]), test[1]))


def recurrent_params(seed: int) -> dict[str, jax.Array]:
    """Returns the parameters of `recurrent`."""
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "enter": jax.random.normal(keys[0], (1, 32)),
        "cell": jax.nn.initializers.orthogonal(1.2)(keys[1], (32, 32)),
        "out": jax.random.normal(keys[2], (32, 1)) / jnp.sqrt(32),
    }


def recurrent(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Maps series (N, T, 1) to outputs (N, 1), with ReLU in the recurrent layer."""

    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.relu(state @ params["cell"] + x @ params["enter"]), None

    state, _ = jax.lax.scan(step, jnp.zeros((len(x), 32)), jnp.swapaxes(x, 0, 1))
    return checkpoint_name(checkpoint_name(state, "state") @ params["out"], "out")


def off_the_cliff(faulty: bool, seed: int) -> Trained:
    """Trains a recurrent network without clipping, as if a lower rate were as good."""
    sgd = optax.sgd(0.02, momentum=0.9)
    tx = sgd if faulty else optax.chain(optax.clip_by_global_norm(1.0), sgd)
    train, test = ((x[:, :10], y) for x, y in series(first=True))
    params = recurrent_params(seed)
    step = optax_step(recurrent, squared_error, tx)
    batches = batches_of(train, size=32, steps=300, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, explained(recurrent(params, jnp.asarray(test[0])), test[1]))


class Regressor(linen.Module):
    """Two hidden layers and an output."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to outputs (N, 1)."""
        for features in (64, 64):
            x = linen.relu(linen.Dense(features)(x))
        return linen.Dense(1)(x)


def outliers_unclipped(faulty: bool, seed: int) -> Trained:
    """Regresses targets of which a few are broken, without clipping the gradient."""
    sgd = optax.sgd(0.03, momentum=0.9)
    tx = sgd if faulty else optax.chain(optax.clip_by_global_norm(1.0), sgd)
    train, test = measurements()
    y = train[1].copy()
    broken = np.random.default_rng(8).choice(len(y), 4, replace=False)
    y[broken] = 400
    state = linen_state(Regressor(), train[0], tx, seed)
    batches = batches_of((train[0], y), size=40, steps=240, seed=seed)
    record, (state,) = run_pure(linen_step(squared_error), (state,), batches)
    return Trained(record, explained(state.apply_fn({"params": state.params}, test[0]), test[1]))


class Classifier(linen.Module):
    """Hidden layers of ReLU, and ten logits."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to logits (N, 10)."""
        for features in (64, 64, 64):
            x = linen.relu(linen.Dense(features)(x))
        return linen.Dense(10)(x)


def factor_of_the_warm_up(faulty: bool, seed: int) -> Trained:
    """Multiplies a rate that rises for a long warm-up, so that it is too high in the middle."""
    warm_up, factor = 200, 0.5 if faulty else 0.005

    def rate(count: jax.Array) -> jax.Array:
        return factor * jnp.minimum((count + 1) / warm_up, 1.0) ** 2

    train, test = digits(flat=True, step=2)
    tx = optax.inject_hyperparams(optax.adam)(learning_rate=rate)
    state = linen_state(Classifier(), train[0], tx, seed)
    batches = batches_of(train, size=50, steps=280, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


class DigitNet(nnx.Module):
    """Strided convolutions with ReLU, and a linear layer."""

    def __init__(self, rngs: nnx.Rngs):
        features = (1, 8, 16, 32)
        self.convs = nnx.List(
            [nnx.Conv(i, o, (3, 3), strides=2, rngs=rngs) for i, o in pairwise(features)]
        )
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 14, 14, 1) to logits (N, 10)."""
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.head(x.reshape(len(x), -1))


def peak_of_one_cycle(faulty: bool, seed: int) -> Trained:
    """Chooses the highest rate of one cycle such that the training breaks near it."""
    peak, steps = (0.4 if faulty else 0.01), 280
    train, test = digits(step=2)
    model = DigitNet(nnx.Rngs(seed))
    rate = optax.cosine_onecycle_schedule(steps, peak, 0.5, div_factor=200.0)
    batches = batches_of(train, size=50, steps=steps, seed=seed)
    record = run_nnx(nnx_step(cross_entropy), model, optax.adam(rate), batches)
    return Trained(record, accuracy(model(test[0]), test[1]))


class LetterNet(nnx.Module):
    """Embeds letters, and maps all of them together to logits."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(20, 12, rngs=rngs)
        self.hidden = nnx.Linear(36, 96, rngs=rngs)
        self.second = nnx.Linear(96, 64, rngs=rngs)
        self.head = nnx.Linear(64, 20, rngs=rngs)

    def __call__(self, letters: jax.Array) -> jax.Array:
        """Maps letters (N, 3) to logits (N, 20)."""
        x = self.embed(letters).reshape(len(letters), -1)
        return self.head(nnx.relu(self.second(nnx.relu(self.hidden(x)))))


def rate_that_never_stops_rising(faulty: bool, seed: int) -> Trained:
    """Calls a scheduler such that its warm-up goes on rising, past the rate that was meant."""
    highest = 3.0 if faulty else 5e-3

    def rate(count: jax.Array) -> jax.Array:
        return jnp.minimum(1e-4 * 1.03**count, highest)

    train, test = next_letters()
    graph, params = nnx.split(LetterNet(nnx.Rngs(seed)))

    def network(params: Any, letters: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(letters)

    tx = optax.adam(rate)
    step = optax_step(network, cross_entropy, tx)
    batches = batches_of(train, size=64, steps=300, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, accuracy(network(params, jnp.asarray(test[0])), test[1]))


_GRADIENTS, _COLLAPSE = "exploding gradients", "collapse"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "clipped gradients that are not used",
        "https://github.com/keithito/tacotron/pull/7",
        _GRADIENTS,
        clipped_but_not_used,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "recurrent network without clipping",
        "https://stats.stackexchange.com/posts/487195/revisions",
        _GRADIENTS,
        off_the_cliff,
        "optax",
        0.7,
    ),
    ReportedFault(
        "sudden rises of the loss without clipping",
        "https://github.com/awslabs/graphstorm/pull/310",
        _GRADIENTS,
        outliers_unclipped,
        "linen",
        0.7,
    ),
    ReportedFault(
        "factor of a rate with a long warm-up",
        "https://github.com/athena-team/athena/issues/148",
        _COLLAPSE,
        factor_of_the_warm_up,
        "linen",
        0.8,
    ),
    ReportedFault(
        "peak of one cycle",
        "https://github.com/fastai/fastai/issues/1736",
        _COLLAPSE,
        peak_of_one_cycle,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "rate that rises after the warm-up",
        "https://github.com/crowsonkb/k-diffusion/issues/50",
        _COLLAPSE,
        rate_that_never_stops_rising,
        "nnx",
        0.7,
    ),
)
