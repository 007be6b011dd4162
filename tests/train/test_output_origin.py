import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

from convjax import ConvNet
from convjax.train.output_origin import output_origin

X = jnp.ones((2, 3))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jax.nn.softmax, "softmax"),
        (linen.softmax, "softmax"),
        (jax.jit(lambda x: jax.nn.softmax(x @ x.T).astype(jnp.float16)), "softmax"),
        (lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x), -1, keepdims=True), "softmax"),
        (jax.checkpoint(lambda x: jax.nn.sigmoid(x).reshape(-1)), "sigmoid"),
        (lambda x: jax.jit(lambda y: y[None])(jax.nn.sigmoid(x)), "sigmoid"),
        (jax.nn.log_softmax, ""),
        (jax.nn.relu, ""),
        (lambda x: jax.nn.softmax(x) + 1, ""),
        (lambda x: x / 2, ""),
        (lambda x: x, ""),
        (lambda x: 1.0, ""),
    ],
)
def test_function(function, expected):
    assert output_origin(jax.make_jaxpr(function)(X)).function == expected


@pytest.mark.parametrize(("layout", "size"), [("NHWC", 8), ("CHWN", 8), ("NCHW", 4)])
def test_maps_are_in_the_order_in_which_they_are_flattened(layout, size):
    net = ConvNet((1, 2, 5), layout=layout, rngs=nnx.Rngs(0))
    net.eval()
    program = jax.make_jaxpr(net)(jnp.ones((2, size, size, 1)))
    assert output_origin(program).maps == (2, 5, size // 4, size // 4)


def test_maps_before_a_linear_layer_are_not_the_outputs():
    program = jax.make_jaxpr(lambda x: x.reshape(2, -1) @ jnp.ones((12, 5)))(jnp.ones((2, 2, 2, 3)))
    assert output_origin(program).maps == ()
