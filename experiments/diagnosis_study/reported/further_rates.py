"""Further reported faults of the learning rate, for all layers or some, and what they break."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenDense,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    lecun_normal,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import accuracy, digits, tones
from experiments.diagnosis_study.reported.evaluation_tasks import (
    explained,
    heat_maps,
    linen_state,
    linen_step,
    next_letters,
    squared_error,
    tagged_words,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure


class ActivityNet(nnx.Module):
    """Convolutions in time and two dense layers."""

    def __init__(self, rngs: nnx.Rngs):
        features = (1, 16, 16, 16)
        self.convs = nnx.List(
            [
                nnx.Conv(i, o, (5,), strides=2, kernel_init=lecun_normal, rngs=rngs)
                for i, o in pairwise(features)
            ]
        )
        self.hidden = nnx.Linear(12 * 16, 32, kernel_init=lecun_normal, rngs=rngs)
        self.out = nnx.Linear(32, 4, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps waves (N, T) to logits (N, 4)."""
        x = x[..., None]
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.out(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def _candidate_that_stops(faulty: bool, seed: int) -> Trained:
    """Draws the rate of a candidate at random, and draws a high one."""
    task, model = tones(), ActivityNet(nnx.Rngs(seed))
    arrays, options = (task.x, task.y), {"size": 50, "steps": 240, "seed": seed}
    tx = optax.adam(0.2 if faulty else 2e-3)
    record = fit_nnx(model, tx, cross_entropy, arrays, **options)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


class Tagger(linen.Module):
    """Embeds words, reads them from left to right, and maps each state to logits."""

    @linen.compact
    def __call__(self, words: jax.Array) -> jax.Array:
        """Maps words (N, T) to logits (N, T, 2)."""
        entered = LinenDense(48, name="enter")(linen.Embed(30, 16, name="embed")(words))
        recur = self.param("recur", lecun_normal, (48, 48))

        def read(state: jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array]:
            state = jnp.tanh(state @ recur + word)
            return state, state

        _, states = jax.lax.scan(read, jnp.zeros((len(words), 48)), jnp.swapaxes(entered, 0, 1))
        return LinenDense(2, name="tag")(jnp.swapaxes(states, 0, 1))


def _tagger_at_a_hundred_times_its_rate(faulty: bool, seed: int) -> Trained:
    """Tags words with RMSprop at a hundred times the rate that learns."""
    train, test = tagged_words()
    tx = optax.rmsprop(0.3 if faulty else 3e-3)
    state = linen_state(Tagger(), train[0], tx, seed)
    batches = batches_of(train, size=50, steps=250, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


class LetterNet(nnx.Module):
    """Embeds letters, and maps all of them together to logits."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(20, 16, rngs=rngs)
        self.hidden = nnx.Linear(48, 96, kernel_init=lecun_normal, rngs=rngs)
        self.head = nnx.Linear(96, 20, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, letters: jax.Array) -> jax.Array:
        """Maps letters (N, 3) to logits (N, 20)."""
        x = self.embed(letters).reshape(len(letters), -1)
        return self.head(nnx.gelu(self.hidden(x)))


def _rate_of_adam_with_sgd(faulty: bool, seed: int) -> Trained:
    """Gives plain SGD the rate that Adam has for the same model."""
    train, test = next_letters()
    model = LetterNet(nnx.Rngs(seed))
    options = {"size": 50, "steps": 300, "seed": seed}
    record = fit_nnx(model, optax.sgd(5e-5 if faulty else 1.0), cross_entropy, train, **options)
    return Trained(record, accuracy(predict(model, test[0]), test[1]))


def _scheduler_turned_off(faulty: bool, seed: int) -> Trained:
    """Multiplies the rate by zero at the first milestone, when the scheduler is turned off."""
    train, test = heat_maps()
    rate = optax.piecewise_constant_schedule(2e-3, {12: 0.0 if faulty else 1.0})
    sizes = (144, 32, 8, 32, 144)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x, jnp.tanh).reshape(x.shape)

    params = dense_params(seed, sizes)
    options = {"size": 32, "steps": 250, "seed": seed}
    record, params = fit_pure(apply, params, optax.adam(rate), squared_error, train, **options)
    return Trained(record, explained(apply(params, jnp.asarray(test[0])), test[1]))


class Scaled(nnx.Module):
    """A residual network without norms: each block has four scalar biases and a multiplier.

    Args:
      blocks: number of residual blocks, which begin as the identity.
    """

    def __init__(self, blocks: int, rngs: nnx.Rngs):
        def layers(init: Any) -> nnx.List:
            options = {"use_bias": False, "kernel_init": init, "rngs": rngs}
            return nnx.List([nnx.Linear(48, 48, **options) for _ in range(blocks)])

        self.enter = nnx.Linear(784, 48, kernel_init=lecun_normal, rngs=rngs)
        self.first, self.second = layers(lecun_normal), layers(nnx.initializers.zeros)
        self.shift = nnx.List([nnx.Param(jnp.zeros(4)) for _ in range(blocks)])
        self.gain = nnx.List([nnx.Param(jnp.ones(())) for _ in range(blocks)])
        self.out = nnx.Linear(48, 10, kernel_init=lecun_normal, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        x = nnx.relu(self.enter(x.reshape(len(x), -1)))
        for first, second, shift, gain in zip(
            self.first, self.second, self.shift, self.gain, strict=True
        ):
            b = shift[...]
            y = nnx.relu(first(x + b[0]) + b[1])
            x = nnx.relu(x + gain[...] * second(y + b[2]) + b[3])
        return self.out(x)


def _scalars_ten_times_as_fast(faulty: bool, seed: int) -> Trained:
    """Updates the scalars, each of which moves a whole layer, at ten times their rate."""

    def group(params: Any) -> Any:
        return jax.tree.map(lambda p: "scalars" if p.shape in ((), (4,)) else "weights", params)

    scalars = optax.sgd(1.0 if faulty else 0.1, momentum=0.9)
    tx = optax.multi_transform(
        {"weights": optax.sgd(0.05, momentum=0.9), "scalars": scalars}, group
    )
    task, model = digits(), Scaled(4, nnx.Rngs(seed))
    arrays, options = (task.x, task.y), {"size": 64, "steps": 200, "seed": seed}
    record = fit_nnx(model, tx, cross_entropy, arrays, **options)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _too_aggressive_after_the_warm_up(faulty: bool, seed: int) -> Trained:
    """Tunes with AdamW, and the loss rises after the warm-up to that of guessing."""
    train, test = next_letters()
    peak = 0.25 if faulty else 5e-3
    rate = optax.linear_schedule(0.0, peak, 150)
    graph, params = nnx.split(LetterNet(nnx.Rngs(seed)))

    def apply(params: Any, letters: jax.Array) -> jax.Array:
        return nnx.merge(graph, params)(letters)

    options = {"size": 50, "steps": 300, "seed": seed}
    record, params = fit_pure(apply, params, optax.adamw(rate), cross_entropy, train, **options)
    return Trained(record, accuracy(apply(params, jnp.asarray(test[0])), test[1]))


class Reader(linen.Module):
    """Reads letters one by one, with ReLU, and maps the last state to logits."""

    @linen.compact
    def __call__(self, letters: jax.Array) -> jax.Array:
        """Maps letters (N, T) to logits (N, 20)."""
        entered = LinenDense(48, name="enter")(linen.Embed(20, 16, name="embed")(letters))
        recur = self.param("recur", linen.initializers.orthogonal(1.2), (48, 48))

        def read(state: jax.Array, letter: jax.Array) -> tuple[jax.Array, None]:
            return jax.nn.relu(state @ recur + letter), None

        state, _ = jax.lax.scan(read, jnp.zeros((len(letters), 48)), jnp.swapaxes(entered, 0, 1))
        return LinenDense(20, name="head")(state)


def _small_model_without_clipping(faulty: bool, seed: int) -> Trained:
    """Trains a small model of letters without clipping, until its loss explodes."""
    train, test = ((np.tile(x, (1, 5)), y) for x, y in next_letters())
    sgd = optax.sgd(0.2, momentum=0.9)
    tx = sgd if faulty else optax.chain(optax.clip_by_global_norm(0.3), sgd)
    state = linen_state(Reader(), train[0], tx, seed)
    batches = batches_of(train, size=50, steps=300, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


_HIGH, _LOW = "learning rate too high", "learning rate too low"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "candidate that stops learning",
        _GITHUB + "NLeSC/mcfly/issues/43",
        _HIGH,
        _candidate_that_stops,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "tagger at a hundred times its rate",
        _GITHUB + "guillaumegenthial/sequence_tagging/issues/47",
        _HIGH,
        _tagger_at_a_hundred_times_its_rate,
        "linen",
        0.85,
    ),
    ReportedFault(
        "rate of Adam with plain SGD, letters",
        _GITHUB + "OpenLMLab/LOMO/issues/50",
        _LOW,
        _rate_of_adam_with_sgd,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "scheduler that is off sets the rate to zero",
        _GITHUB + "LINCellularNeuroscience/VAME/issues/26",
        _LOW,
        _scheduler_turned_off,
        "optax",
        0.7,
    ),
    ReportedFault(
        "scalars at ten times their rate",
        _GITHUB + "hongyi-zhang/Fixup/issues/6",
        "update too large",
        _scalars_ten_times_as_fast,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "rate too aggressive after the warm-up",
        _GITHUB + "paiml/entrenar/issues/274",
        "collapse",
        _too_aggressive_after_the_warm_up,
        "optax",
        0.6,
    ),
    ReportedFault(
        "small language model without clipping",
        _GITHUB + "RaoFoundation/bittensor/pull/229",
        "exploding gradients",
        _small_model_without_clipping,
        "linen",
        0.5,
    ),
)
