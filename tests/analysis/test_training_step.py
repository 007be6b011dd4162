"""The repeated step of any network, against its gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from convjax.analysis.training_step import TINY, training_step


class Scale(nnx.Module):
    """y = a·x, and counts its calls."""

    def __init__(self):
        self.a = nnx.Param(jnp.float32(3.0))
        self.calls = nnx.BatchStat(jnp.float32(0.0))

    def __call__(self, x):
        self.calls[...] += 1
        return self.a * x


X = jnp.full((2, 1, 1, 1), 2e6, jnp.float32)  # large, so that the tiny changes show in float32


def changed(network, **settings):
    """The first parameter, the other variables and the images after a step."""
    step = training_step(network, X, **settings)
    params, rest, images = jax.jit(step.step)(step.state)
    return jax.tree.leaves(params), jax.tree.leaves(rest), images


def test_step_of_a_module_by_hand():
    """The loss is the mean of (3·x)², its derivative by a 2·3·x², and by each image 2·9·x/2."""
    params, rest, images = changed(Scale(), backward=True, images_gradient=True)
    np.testing.assert_allclose(params[0], 3 - TINY * 6 * 4e12, rtol=1e-6)
    assert rest == [1]
    np.testing.assert_allclose(X - images, TINY * 9 * 2e6, atol=0.13)  # ulp of 2e6 in float32
    _, _, images = changed(Scale(), backward=True, images_gradient=False)
    assert (images == X).all()


def test_step_without_gradients_changes_the_images_by_the_loss():
    params, rest, images = changed(Scale(), backward=False, images_gradient=False)
    assert (params[0], rest) == (3, [1])
    np.testing.assert_allclose(images - X, TINY * 9 * 4e12, rtol=1e-4)


def scaled(parameters, images):
    return {"map": parameters["a"] * images, "mode": images[:1] * 0}


def test_step_of_a_function_with_parameters():
    parameters = {"a": np.float32(3), "count": np.arange(2), "name": "none"}
    params, rest, _ = changed((scaled, parameters), backward=True, images_gradient=False)
    # The first array has a leading axis of two images, the second is zero.
    np.testing.assert_allclose(params[0], 3 - TINY * 6 * 4e12, rtol=1e-6)
    assert [x.tolist() for x in rest] == [[0, 1]]


def test_step_of_a_function_of_images_alone():
    params, rest, images = changed(lambda x: 3 * x, backward=True, images_gradient=True)
    assert (params, rest) == ([], [])
    np.testing.assert_allclose(X - images, TINY * 9 * 2e6, atol=0.13)


def test_step_of_linen():
    module = linen.Dense(1, use_bias=False)
    variables = {"params": {"kernel": jnp.full((1, 1), 3.0)}}
    params, _, _ = changed((module.apply, variables), backward=True, images_gradient=False)
    np.testing.assert_allclose(params[0], 3 - TINY * 6 * 4e12, rtol=1e-6)


@pytest.mark.parametrize("network", [3, ("relu", {}), None])
def test_no_network(network):
    with pytest.raises(TypeError, match="make_network must return an NNX module, a function"):
        training_step(network, X, backward=True, images_gradient=False)
