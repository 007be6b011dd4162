"""Reported faults of the update: it is not applied, or its gradients are never cleared."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState
from jax.ad_checkpoint import checkpoint_name

from experiments.diagnosis_study.reported.evaluation_tasks import (
    Params,
    accuracy,
    binary_accuracy,
    binary_cross_entropy,
    centres,
    cross_entropy,
    digits,
    explained,
    linen_state,
    measurements,
    next_letters,
    nnx_step,
    rings,
    squared_error,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class ConvNet(linen.Module):
    """Two strided convolutions and a dense layer."""

    outputs: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to outputs (N, K)."""
        for features in (8, 16):
            x = linen.relu(linen.Conv(features, (3, 3), strides=2)(x))
        return linen.Dense(self.outputs)(x.reshape(len(x), -1))


def schedule_alone(faulty: bool, seed: int) -> Trained:
    """Steps the schedule and the moments, as if that moved the parameters, too."""

    def step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
        def loss_fn(params: Any) -> jax.Array:
            return cross_entropy(state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
        updated = optax.apply_updates(state.params, updates)
        params = state.params if faulty else updated
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), loss

    train, test = digits(step=2)
    rate = optax.cosine_decay_schedule(3e-3, 200)
    state = linen_state(ConvNet(10), train[0], optax.adam(rate), seed)
    batches = batches_of(train, size=64, steps=160, seed=seed)
    record, (state,) = run_pure(step, (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


class RingNet(nnx.Module):
    """Two hidden layers and one logit."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(2, 32, rngs=rngs)
        self.second = nnx.Linear(32, 32, rngs=rngs)
        self.logit = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps points (N, 2) to logits (N,)."""
        return self.logit(nnx.relu(self.second(nnx.relu(self.first(x)))))[:, 0]


def copy_updated(faulty: bool, seed: int) -> Trained:
    """Gives the optimiser a copy of the weights, which it updates in place of the weights."""

    def step(
        model: RingNet, optimizer: nnx.Optimizer[Any], x: jax.Array, y: jax.Array
    ) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: binary_cross_entropy(model(x), y))(model)
        weights = nnx.clone(model) if faulty else model
        optimizer.update(weights, grads)
        return loss

    train, test = rings()
    model = RingNet(nnx.Rngs(seed))
    batches = batches_of(train, size=50, steps=200, seed=seed)
    record = run_nnx(step, model, optax.sgd(0.1, momentum=0.9), batches)
    return Trained(record, binary_accuracy(model(test[0]), test[1]))


class LetterNet(nnx.Module):
    """Embeds letters, and maps all of them together to logits."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(20, 12, rngs=rngs)
        self.hidden = nnx.Linear(36, 96, rngs=rngs)
        self.head = nnx.Linear(96, 20, rngs=rngs)

    def __call__(self, letters: jax.Array) -> jax.Array:
        """Maps letters (N, 3) to logits (N, 20)."""
        x = self.embed(letters).reshape(len(letters), -1)
        return self.head(nnx.gelu(self.hidden(x)))


def changes_lost_in_jit(faulty: bool, seed: int) -> Trained:
    """Compiles a step that changes its model by a jit that drops all changes of arguments."""
    train, test = next_letters()
    model = LetterNet(nnx.Rngs(seed))
    batches = batches_of(train, size=64, steps=250, seed=seed)
    options = {"jit": jax.jit} if faulty else {}
    record = run_nnx(nnx_step(cross_entropy), model, optax.adamw(5e-3), batches, **options)
    return Trained(record, accuracy(model(test[0]), test[1]))


def spot_params(seed: int) -> dict[str, Params]:
    """Returns the parameters of `spot_net`."""
    make, keys = jax.nn.initializers.he_normal(), jax.random.split(jax.random.key(seed), 3)
    return {
        "conv0": {"kernel": make(keys[0], (3, 3, 1, 8)), "bias": jnp.zeros(8)},
        "conv1": {"kernel": make(keys[1], (3, 3, 8, 12)), "bias": jnp.zeros(12)},
        "dense": {"kernel": make(keys[2], (108, 2)), "bias": jnp.zeros(2)},
    }


def spot_net(params: dict[str, Params], x: jax.Array) -> jax.Array:
    """Maps images (N, 12, 12, 1) to two outputs, with leaky ReLUs."""
    for name in ("conv0", "conv1"):
        x = jax.lax.conv_general_dilated(
            x, params[name]["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.leaky_relu(checkpoint_name(x + params[name]["bias"], name))
    x = x.reshape(len(x), -1) @ params["dense"]["kernel"] + params["dense"]["bias"]
    return checkpoint_name(x, "dense")


def never_cleared(faulty: bool, seed: int) -> Trained:
    """Adds each gradient to those of all steps before, in a loop without modules."""
    tx = optax.adam(3e-3)

    def step(params: Any, opt_state: Any, sums: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            return squared_error(spot_net(params, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        sums = jax.tree.map(jnp.add, sums, grads) if faulty else grads
        updates, opt_state = tx.update(sums, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, sums, loss

    train, test = centres()
    params = spot_params(seed)
    state = params, tx.init(params), jax.tree.map(jnp.zeros_like, params)
    record, (params, *_) = run_pure(step, state, batches_of(train, size=32, steps=200, seed=seed))
    return Trained(record, explained(spot_net(params, test[0]), test[1]))


class DigitNet(nnx.Module):
    """A strided convolution and two linear layers."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 8, (5, 5), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(8 * 7 * 7, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 14, 14, 1) to logits (N, 10)."""
        x = nnx.relu(self.conv(x)).reshape(len(x), -1)
        return self.head(nnx.relu(self.hidden(x)))


def cleared_once_an_epoch(faulty: bool, seed: int) -> Trained:
    """Clears the gradients where an epoch begins instead of before each batch."""
    graph, params = nnx.split(DigitNet(nnx.Rngs(seed)))
    tx, epoch = optax.sgd(0.1), 80

    def step(
        params: Any, opt_state: Any, sums: Any, x: jax.Array, y: jax.Array, clear: jax.Array
    ) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            return cross_entropy(nnx.merge(graph, params)(x), y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        sums = jax.tree.map(lambda s, g: jnp.where(clear, 0, s) + g, sums, grads)
        updates, opt_state = tx.update(sums, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, sums, loss

    train, test = digits(step=2)
    batches = (
        (x, y, jnp.asarray(not faulty or i % epoch == 0))
        for i, (x, y) in enumerate(batches_of(train, size=50, steps=240, seed=seed))
    )
    state = params, tx.init(params), jax.tree.map(jnp.zeros_like, params)
    record, (params, *_) = run_pure(step, state, batches)
    return Trained(record, accuracy(nnx.merge(graph, params)(test[0]), test[1]))


class Accumulating(TrainState):
    """A state with the sum of all gradients so far."""

    sums: Any = None


class Regressor(linen.Module):
    """Two hidden layers and one output."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to outputs (N, 1)."""
        x = linen.tanh(linen.Dense(48)(x))
        return linen.Dense(1)(linen.tanh(linen.Dense(48)(x)))


def sums_in_the_state(faulty: bool, seed: int) -> Trained:
    """Keeps the gradients in the state of a regression, where each step adds to them."""

    def step(state: Accumulating, x: jax.Array, y: jax.Array) -> tuple[Accumulating, jax.Array]:
        def loss_fn(params: Any) -> jax.Array:
            return squared_error(state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        if faulty:
            grads = jax.tree.map(jnp.add, state.sums, grads)
        return state.apply_gradients(grads=grads).replace(sums=grads), loss

    train, test = measurements()
    network = Regressor()
    params = network.init(jax.random.key(seed), train[0][:2])["params"]
    state = Accumulating.create(
        apply_fn=network.apply,
        params=params,
        tx=optax.sgd(0.1),
        sums=jax.tree.map(jnp.zeros_like, params),
    )
    record, (state,) = run_pure(step, (state,), batches_of(train, size=40, steps=250, seed=seed))
    return Trained(record, explained(state.apply_fn({"params": state.params}, test[0]), test[1]))


_NOT_APPLIED, _ACCUMULATE = "update not applied", "gradients accumulate"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "the schedule is stepped, the parameters are not",
        "https://github.com/pytorch/pytorch/issues/3814",
        _NOT_APPLIED,
        schedule_alone,
        "linen",
        0.75,
    ),
    ReportedFault(
        "the optimiser updates a copy of the weights",
        "https://github.com/nntrainer/nntrainer/pull/242",
        _NOT_APPLIED,
        copy_updated,
        "nnx",
        0.9,
    ),
    ReportedFault(
        "jax.jit drops the changes of a module",
        "https://github.com/google/flax/pull/5293",
        _NOT_APPLIED,
        changes_lost_in_jit,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "gradients are never cleared, leaky ReLU",
        "https://github.com/neuronika/neuronika/issues/100",
        _ACCUMULATE,
        never_cleared,
        "optax",
        0.8,
    ),
    ReportedFault(
        "gradients are cleared once an epoch",
        "https://github.com/heartcored98/Standalone-DeepLearning/issues/11",
        _ACCUMULATE,
        cleared_once_an_epoch,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "gradients stay in the state, regression",
        "https://github.com/jcjohnson/pytorch-examples/issues/31",
        _ACCUMULATE,
        sums_in_the_state,
        "linen",
        0.6,
    ),
)
