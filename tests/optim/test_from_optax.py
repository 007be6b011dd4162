"""Optimisers of Optax under the schedules, against Optax with the rates of each step."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from convjax import LinearNet, Trainer, adam, from_optax, sgd
from convjax.optim.optimizers import as_optimizer

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.1, -0.2])}
GRADIENTS = [{"kernel": jnp.full((2, 2), g), "bias": jnp.array([g, -g])} for g in (0.5, -1.0, 2.0)]
RATES, MOMENTA = (0.1, 0.2, 0.05), (0.95, 0.9, 0.85)


def followed(optimizer):
    """The parameters after three steps at the rates and momenta."""
    params, state = PARAMS, optimizer.transform.init(PARAMS)
    for gradient, rate, momentum in zip(GRADIENTS, RATES, MOMENTA, strict=True):
        state = optimizer.set(state, jnp.float32(rate), jnp.float32(momentum))
        updates, state = optimizer.transform.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        applied = optimizer.applied(state)
        assert applied[0] == np.float32(rate)
        wanted = np.nan if optimizer.momentum_name is None else np.float32(momentum)
        np.testing.assert_equal(np.asarray(applied[1]), np.float32(wanted))
    return params


def by_optax(make):
    """The same with a transformation made for each step, whose state goes on."""
    params, state = PARAMS, make(RATES[0], MOMENTA[0]).init(PARAMS)
    for gradient, rate, momentum in zip(GRADIENTS, RATES, MOMENTA, strict=True):
        updates, state = make(rate, momentum).update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def clipped(learning_rate):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(learning_rate))


def accumulated(learning_rate):
    return optax.MultiSteps(optax.sgd(learning_rate), 2)


@pytest.mark.parametrize(
    ("optimizer", "make", "scheduled"),
    [
        (from_optax(optax.lion), lambda r, m: optax.lion(r, b1=m), True),
        (
            from_optax(optax.adamw, weight_decay=0.1),
            lambda r, m: optax.adamw(r, m, weight_decay=0.1),
            True,
        ),
        (from_optax(optax.adam, b1=0.5), lambda r, m: optax.adam(r, 0.5), False),
        (from_optax(optax.sgd), lambda r, m: optax.sgd(r), False),
        (
            from_optax(optax.sgd, momentum="momentum", nesterov=True),
            lambda r, m: optax.sgd(r, m, nesterov=True),
            True,
        ),
        (from_optax(optax.contrib.muon), lambda r, m: optax.contrib.muon(r, beta=m), True),
        (from_optax(clipped), lambda r, m: clipped(r), False),
        (from_optax(optax.adamw, momentum=None), lambda r, m: optax.adamw(r), False),
    ],
    ids=["lion", "adamw", "fixed b1", "sgd", "nesterov", "muon", "clipped", "no momentum"],
)
def test_rates_and_momenta_of_each_step(optimizer, make, scheduled):
    assert (optimizer.momentum_name is not None) == scheduled
    found, wanted = followed(optimizer), by_optax(make)
    for name in PARAMS:
        # Python numbers there, float32 arrays here: a rounding of each step's factors.
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_accumulated_gradients():
    """Two gradients are averaged, 0.5 and −1; the third waits for the next."""
    found = followed(from_optax(accumulated))
    np.testing.assert_allclose(found["bias"], [0.1 + 0.2 * 0.25, -0.2 - 0.2 * 0.25], rtol=1e-6)


def test_trainer_takes_a_function_of_optax():
    model = LinearNet((4, 2), rngs=nnx.Rngs(0))
    assert Trainer(model, optax.lion, watch=None).optimizer.momentum_name is not None
    assert as_optimizer(adam()).momentum_name == "b1"


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (optax.adam(0.1), {}, "must be a function of the learning rate, got GradientTransf"),
        (3, {}, "must be a function of the learning rate, got int: 3"),
        (lambda rate: optax.sgd(rate), {}, "make must have the argument learning_rate.*with rate"),
        (optax.adam, {"momentum": "beta"}, "make must have the argument beta, got 'adam'"),
        (optax.adam, {"decay": 0.1}, "make must have the argument decay, got 'adam'"),
    ],
)
def test_errors(make, settings, message):
    with pytest.raises(TypeError, match=message):
        from_optax(make, **settings)


def test_a_function_that_makes_no_transformation():
    made = from_optax(lambda learning_rate: learning_rate)
    with pytest.raises(TypeError, match="make must return a transformation of Optax"):
        made.transform.init(PARAMS)


@pytest.mark.parametrize("function", [adam, sgd])
def test_our_optimisers_must_be_called(function):
    with pytest.raises(TypeError, match=rf"Call it: convjax.{function.__name__}\(\)"):
        as_optimizer(function)
