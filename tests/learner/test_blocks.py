"""The chapter's blocks: shapes, seeds, layouts, and what is said of layers that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convjax
from convjax import conv, sequential, set_seed
from convjax.learner import default_rngs
from convjax.nn import AvgPool, Conv, Flatten, MaxPool
from convjax.ops.layout import KERNEL_AXES

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)


def test_conv_halves_the_image_and_counts_as_the_chapter():
    """The chapter's table: 40, 296, 1,168, 4,640 and 578 parameters, then 7, 4, 2 and 1 pixels."""
    set_seed(0)
    blocks = [conv(1, 4), conv(4, 8), conv(8, 16), conv(16, 32), conv(32, 2, act=False)]
    sizes = [sum(p.size for p in jax.tree.leaves(nnx.state(block, nnx.Param))) for block in blocks]
    assert sizes == [40, 296, 1_168, 4_640, 578]
    net = sequential(*blocks, axes="NCHW")
    assert net(jnp.ones((64, 28, 28, 1))).shape == (64, 2, 1, 1)


def test_conv_is_convolution_norm_relu():
    block = conv(1, 3, 5, norm="batch", layout="NHWC", stride=1)
    by_hand = convjax.conv2d(X, block.conv.kernel[...], block.conv.bias[...], padding=2)
    by_hand = (by_hand - by_hand.mean((0, 1, 2))) / jnp.sqrt(by_hand.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(block(X), jnp.maximum(by_hand, 0), atol=1e-5)
    assert (conv(1, 3, act=False, layout="NHWC")(X) < 0).any()


@pytest.mark.parametrize("layout", KERNEL_AXES)
def test_sequential_computes_the_same_in_every_layout(layout):
    def net(layout, axes):
        rngs = nnx.Rngs(0)
        return sequential(
            conv(1, 4, layout=layout, rngs=rngs), nnx.tanh, conv(4, 3, layout=layout, rngs=rngs),
            axes=axes,
        )  # fmt: skip

    wanted = net("NHWC", "NHWC")(X)
    np.testing.assert_allclose(net(layout, "NHWC")(X), wanted, atol=1e-6)
    found = net(layout, "NCHW")(X)
    np.testing.assert_allclose(found, jnp.moveaxis(wanted, -1, 1), atol=1e-6)


def test_set_seed_decides_all_that_follows():
    set_seed(3)
    first = [conv(1, 4).conv.kernel[...] for _ in range(2)]
    set_seed(3)
    again = [conv(1, 4).conv.kernel[...] for _ in range(2)]
    assert [bool((a == b).all()) for a, b in zip(first, again, strict=True)] == [True, True]
    assert not (first[0] == first[1]).all()
    assert isinstance(default_rngs(), nnx.Rngs)
    with pytest.raises(TypeError, match="seed must be a whole number"):
        set_seed("3")


def test_sequential_of_vectors():
    net = sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.relu)
    assert net(jnp.ones((5, 3))).shape == (5, 4)


def test_errors():
    with pytest.raises(ValueError, match="norm must be None or one of batch"):
        conv(1, 4, norm="bacth")
    with pytest.raises(TypeError, match=r"layers must be modules or functions, got .*Conv.* at 0"):
        sequential(Conv)
    with pytest.raises(ValueError, match="layers must have one layout, got NHWC, NCHW"):
        sequential(conv(1, 2, layout="NHWC"), conv(2, 2, layout="NCHW"))


@pytest.mark.parametrize("layout", KERNEL_AXES)
def test_layers_without_parameters_take_the_layout_over(layout):
    rngs = nnx.Rngs(0)
    layers = [conv(1, 4, layout=layout, rngs=rngs, stride=1), MaxPool(2), AvgPool(2), Flatten()]
    found = sequential(*layers)(X)
    assert found.shape == (2, 4 * 2 * 2)
    assert layers[1].layout == "NHWC"  # those of the caller stay as they are
    rngs = nnx.Rngs(0)
    wanted = sequential(conv(1, 4, layout="NHWC", rngs=rngs, stride=1), *layers[1:])(X)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("layout", KERNEL_AXES)
@pytest.mark.parametrize(
    "function", [nnx.softmax, lambda x: x.mean((1, 2)), lambda x: x * jnp.arange(4.0)]
)
def test_functions_get_maps_with_the_channels_last(layout, function):
    """On a CPU maps are CHWN inside, of which a softmax would mix the examples."""
    found = sequential(conv(1, 4, layout=layout, rngs=nnx.Rngs(0)), function)(X)
    wanted = function(sequential(conv(1, 4, layout="NHWC", rngs=nnx.Rngs(0)))(X))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("axes", ["NHWC", "NCHW"])
def test_networks_within_networks(axes):
    def parts(layout):
        rngs = nnx.Rngs(0)
        blocks = [conv(1, 4, layout=layout, rngs=rngs), conv(4, 4, layout=layout, rngs=rngs)]
        return blocks, conv(4, 3, layout=layout, rngs=rngs)

    inner, last = parts("CHWN")
    found = sequential(sequential(*inner, axes=axes), last)(X)
    inner, last = parts("NHWC")
    np.testing.assert_allclose(found, sequential(*inner, last)(X), atol=1e-6)
    net = convjax.ConvNet((1, 4, 2), layout="CHWN", rngs=nnx.Rngs(0))
    np.testing.assert_allclose(sequential(net, nnx.relu)(X), nnx.relu(net(X)), atol=1e-6)
