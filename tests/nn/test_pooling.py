"""Layers without parameters, in every layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convjax
from convjax.nn import AvgPool, Flatten, GlobalAvgPool, Linear, MaxPool
from convjax.ops import avg_pool, max_pool
from tests.helpers import LAYOUTS, reorder


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("layer", "function"), [(MaxPool, max_pool), (AvgPool, avg_pool)])
def test_pooling_layers_pass_every_setting_on(layer, function, layout):
    x = draw(2, 7, 6, 3)
    settings = {"stride": (2, 1), "padding": (1, 0)}
    found = layer((3, 2), layout=layout, **settings)(reorder(x, "NHWC", layout))
    # The same operation on the same numbers; sums of six in float32 may be in another order.
    expected = function(x, (3, 2), **settings)
    np.testing.assert_allclose(reorder(found, layout, "NHWC"), expected, atol=1e-6)
    # By default windows do not overlap.
    assert layer(2)(x).shape == (2, 3, 3, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_global_avg_pool_is_examples_by_channels(layout):
    x = draw(4, 3, 5, 2)
    found = GlobalAvgPool(layout=layout)(reorder(x, "NHWC", layout))
    # Sums of 15 values of order 1 in float32.
    np.testing.assert_allclose(found, x.mean((1, 2)), atol=1e-6)


def test_global_avg_pool_sums_half_precision_in_float32():
    # 4096 ones and a half would stay at 256 in bfloat16, whose next number is 258.
    x = jnp.full((1, 64, 64, 1), 1.5, jnp.bfloat16)
    assert GlobalAvgPool()(x).dtype == jnp.bfloat16
    assert float(GlobalAvgPool()(x)[0, 0]) == 1.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flatten_has_the_order_of_pytorch(layout):
    x = draw(4, 3, 5, 2)
    found = Flatten(layout=layout)(reorder(x, "NHWC", layout))
    np.testing.assert_array_equal(found, x.transpose(0, 3, 1, 2).reshape(4, 30))


@pytest.mark.parametrize("layer", [GlobalAvgPool, Flatten, lambda **s: MaxPool(2, **s)])
def test_layers_reject_other_axes_and_layouts(layer):
    with pytest.raises(ValueError, match=r"x must have the four axes NCHW, got shape \(2, 3\)"):
        layer(layout="NCHW")(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"layout must be one of .*got 'HWCN'"):
        layer(layout="HWCN")


def test_layers_stand_between_others_in_a_network_that_trains():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.pool, self.flatten = MaxPool(2), Flatten()
            self.head = Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(self.flatten(self.pool(x)))

    model, x = Net(nnx.Rngs(0)), draw(5, 4, 4, 2)
    gradients = nnx.grad(lambda model: jnp.square(model(x)).sum())(model)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    assert [row.name for row in convjax.summary(model, x).rows] == ["head"]
