"""Reported faults of the initialisation after which a layer of ReLU is never active."""

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
    nnx_step,
    optax_step,
    species,
    squared_error,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class PositiveNet(nnx.Module):
    """A hidden layer of features that are all positive, and a logit.

    Args:
      low: whether the weights of the hidden layer all begin below zero.
    """

    def __init__(self, low: bool, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(10, 24, rngs=rngs)
        if low:
            self.hidden.kernel[...] = -jnp.abs(self.hidden.kernel[...])
        self.second = nnx.Linear(24, 24, rngs=rngs)
        self.head = nnx.Linear(24, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, 10) to logits (N, 4)."""
        return self.head(nnx.relu(self.second(nnx.relu(self.hidden(x)))))


def negative_weights(faulty: bool, seed: int) -> Trained:
    """Maps positive features by negative weights to a ReLU."""
    (x, y), (test_x, test_y) = species()
    positive, test_positive = (np.clip(x + 2.5, 0.05, None) / 2.5 for x in (x, test_x))
    model = PositiveNet(faulty, nnx.Rngs(seed))
    batches = batches_of((positive, y), size=48, steps=300, seed=seed)
    record = run_nnx(nnx_step(cross_entropy), model, optax.adam(2e-2), batches)
    return Trained(record, accuracy(model(jnp.asarray(test_positive)), test_y))


def weights_around_ten(faulty: bool, seed: int) -> Trained:
    """Draws weights around 10 where 0 is meant, for inputs from −1 to 0 and no bias."""

    def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        x = checkpoint_name(x @ params["hidden"], "hidden")
        return checkpoint_name(jax.nn.relu(x) @ params["head"], "head")

    (x, y), (test_x, test_y) = digits(flat=True, step=2)
    keys = jax.random.split(jax.random.key(seed))
    hidden = (10.0 if faulty else 0.0) + 0.1 * jax.random.normal(keys[0], (196, 48))
    params = {"hidden": hidden, "head": 0.1 * jax.random.normal(keys[1], (48, 10))}
    tx = optax.adam(3e-3)
    step = optax_step(network, cross_entropy, tx)
    batches = batches_of((x - 1, y), size=50, steps=240, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, accuracy(network(params, jnp.asarray(test_x - 1)), test_y))


class Biased(linen.Module):
    """Hidden layers, of which one has a bias of its own.

    Attributes:
      bias: of the second hidden layer.
    """

    bias: float

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps rows (N, D) to outputs (N, 1)."""
        x = linen.relu(linen.Dense(48)(x))
        x = linen.relu(linen.Dense(48, bias_init=linen.initializers.constant(self.bias))(x))
        return linen.Dense(1)(x)


def bias_below_all_inputs(faulty: bool, seed: int) -> Trained:
    """Begins the bias of a hidden layer below whatever its weights make of any input."""
    train, test = measurements()
    state = linen_state(Biased(-6.0 if faulty else 0.0), train[0], optax.adam(5e-3), seed)
    batches = batches_of(train, size=40, steps=240, seed=seed)
    record, (state,) = run_pure(linen_step(squared_error), (state,), batches)
    return Trained(record, explained(state.apply_fn({"params": state.params}, test[0]), test[1]))


_DEAD = "dead layer"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "positive features and negative weights",
        "https://stats.stackexchange.com/questions/450100/"
        "understanding-relu-does-this-unlucky-intialized-network-assign-all-instances",
        _DEAD,
        negative_weights,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "weights around ten for inputs below zero",
        "https://www.oknoname.com/EPFL/CS-433/topic/1757/#c1",
        _DEAD,
        weights_around_ten,
        "optax",
        0.65,
    ),
    ReportedFault(
        "bias below all that a layer sees",
        "https://ai.stackexchange.com/questions/10158/"
        "how-can-a-neural-network-learn-when-the-derivative-of-the-activation-function-is",
        _DEAD,
        bias_below_all_inputs,
        "linen",
        0.6,
    ),
)
