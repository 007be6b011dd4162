import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from convjax.stats._optimizer_calls import optimizer_calls

PARAMS = {"w": jnp.arange(3.0)}
GRADS = {"w": jnp.full(3, 2.0)}


def reported(run):
    """Returns the calls that are reported while a function runs, and its result."""
    calls = []
    with optimizer_calls(calls.append):
        result = run()
    return calls, result


def test_optimizer_calls_reports_what_goes_in_and_out():
    transform = optax.sgd(0.5, momentum=0.9)
    state = transform.init(PARAMS)
    ((call,), (updates, _)) = reported(lambda: transform.update(GRADS, state, PARAMS))
    assert call.grads is GRADS
    assert call.params is PARAMS
    assert call.updates is updates
    np.testing.assert_array_equal(updates["w"], -1)
    assert jax.tree.structure(call.state) == jax.tree.structure(state)


@pytest.mark.parametrize(
    "transform",
    [
        optax.chain(optax.clip(1.0), optax.adam(0.1)),
        optax.MultiSteps(optax.sgd(0.1), 2),
        optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
        optax.inject_hyperparams(optax.sgd)(0.1),
        optax.masked(optax.sgd(0.1), {"w": True}),
        optax.apply_if_finite(optax.sgd(0.1), 3),
        optax.lookahead(optax.sgd(0.1), 2, 0.5),
    ],
    ids=["chain", "MultiSteps", "of MultiSteps", "inject", "masked", "if finite", "lookahead"],
)
def test_optimizer_calls_reports_the_outermost_transformation_once(transform):
    params, grads = PARAMS, GRADS
    if transform.init.__qualname__.startswith("lookahead"):
        params = optax.LookaheadParams.init_synced(PARAMS)
    state = transform.init(params)
    plain, _ = transform.update(grads, state, params)
    calls, (updates, _) = reported(lambda: transform.update(grads, state, params))
    assert len(calls) == 1
    jax.tree.map(np.testing.assert_array_equal, updates, plain)
    assert calls[0].grads is grads


def test_optimizer_calls_reports_the_loops_of_flax():
    class Model(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(PARAMS["w"])

    model = Model()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    grads = nnx.grad(lambda model: 2 * model.w[...].sum())(model)
    ((call,), _) = reported(lambda: optimizer.update(model, grads))
    np.testing.assert_allclose(jax.tree.leaves(call.updates)[0], -0.2, rtol=1e-6)

    state = TrainState.create(apply_fn=None, params=PARAMS, tx=optax.sgd(0.1))
    ((call,), _) = reported(lambda: state.apply_gradients(grads=GRADS))
    np.testing.assert_allclose(call.updates["w"], -0.2, rtol=1e-6)


def test_optimizer_calls_without_params_or_with_further_arguments():
    ((call,), _) = reported(lambda: optax.scale(-1.0).update(GRADS, optax.scale(1.0).init(PARAMS)))
    assert call.params is None
    transform = optax.contrib.reduce_on_plateau()
    state = transform.init(PARAMS)
    calls, _ = reported(lambda: transform.update(GRADS, state, PARAMS, value=1.0))
    assert len(calls) == 1


def test_optimizer_calls_reports_in_order_and_to_the_innermost():
    transform = optax.sgd(1.0)
    state = transform.init(PARAMS)
    outer, inner = [], []
    with optimizer_calls(outer.append):
        transform.update(GRADS, state)
        with optimizer_calls(inner.append):
            transform.update(PARAMS, state)
        transform.update(PARAMS, state)
    assert [call.grads is GRADS for call in outer] == [True, False]
    assert len(inner) == 1


def test_optimizer_calls_leaves_optax_as_it_was():
    own = vars(optax.GradientTransformation)["update"], vars(optax.MultiSteps)["update"]
    with pytest.raises(RuntimeError, match="of the step"), optimizer_calls(print):
        raise RuntimeError("of the step")
    after = vars(optax.GradientTransformation)["update"], vars(optax.MultiSteps)["update"]
    assert after == own


def test_optimizer_calls_are_those_of_this_thread():
    transform = optax.sgd(1.0)
    state = transform.init(PARAMS)
    calls, other = [], threading.Thread(target=lambda: transform.update(GRADS, state))
    with optimizer_calls(calls.append):
        other.start()
        other.join()
        assert calls == []
        transform.update(GRADS, state)
    assert len(calls) == 1


def test_optimizer_calls_passes_on_an_error_of_the_transformation():
    def fails(updates, state, params=None):
        raise KeyError("of the transformation")

    transform = optax.GradientTransformation(lambda params: (), fails)
    calls = []
    with optimizer_calls(calls.append):
        with pytest.raises(KeyError, match="of the transformation"):
            transform.update(GRADS, ())
        optax.sgd(1.0).update(GRADS, optax.sgd(1.0).init(PARAMS))
    assert len(calls) == 1
