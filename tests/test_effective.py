import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from convjax.conv import conv2d
from convjax.effective import EffectiveField, effective_field
from convjax.models import threes_sevens_net


def test_one_convolution_by_hand():
    """One channel: the gradient is the kernel, times a random number."""
    kernel = np.arange(9.0, dtype=np.float32).reshape(3, 3)

    def named(x):
        return conv2d(x, kernel[:, :, None, None], padding=1, method="lax"), {"x": x}

    found = effective_field(named, jnp.zeros((1, 8, 8, 1)), layer="output", cell=(2, 3))
    assert found.cell == (2, 3)
    assert found.support == (slice(1, 4), slice(2, 5))
    around = found.magnitude[1:4, 2:5]
    np.testing.assert_allclose(around / around[2, 2], kernel / 8, rtol=1e-6)  # float32
    # 4.55 % of 8 is 0.364: all but the weight of 0 count.
    assert found.effective_size == pytest.approx(np.sqrt(8))


def test_size_and_effective_size():
    magnitude = np.zeros((9, 7))
    magnitude[2:6, 1:4] = 0.04
    magnitude[3:5, 2] = 1
    found = EffectiveField("x", (0, 0), magnitude)
    assert found.size == (4, 3)
    assert found.effective_size == pytest.approx(np.sqrt(2))
    nothing = EffectiveField("x", (0, 0), np.zeros((3, 3)))
    assert (nothing.size, nothing.effective_size) == ((0, 0), 0)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
def test_layouts_of_networks_and_images(layout):
    """The same weights in every layout of the network: the same magnitudes."""
    images = jax.random.normal(jax.random.key(0), (4, 28, 28, 1))
    model = threes_sevens_net(layout=layout, rngs=nnx.Rngs(0))
    reference = threes_sevens_net(layout="NHWC", rngs=nnx.Rngs(0))
    found = effective_field(model, images, layer="blocks.1.conv")
    expected = effective_field(reference, images, layer="blocks.1.conv")
    assert found.magnitude.shape == (28, 28)
    # Sums of tens of products in float32, in another order.
    np.testing.assert_allclose(found.magnitude, expected.magnitude, rtol=1e-4, atol=1e-6)

    def turned(x):
        return model(x.transpose(0, 2, 3, 1)), {"x": x}

    with pytest.raises(ValueError, match=r"'output' has the shape \(4, 2\)"):
        effective_field(turned, images.transpose(0, 3, 1, 2), layer="output", layout="NCHW")
    first = effective_field(
        lambda x: (x, {"first": model.blocks[0](x.transpose(layout_axes(layout)))}),
        images.transpose(0, 3, 1, 2),
        layer="output",
        layout="NCHW",
        cell=(0, 5),
    )
    assert first.magnitude.shape == (28, 28)


def layout_axes(layout):
    return tuple("NCHW".index(letter) for letter in layout)


def test_a_linen_network():
    model = linen.Sequential([linen.Conv(3, (3, 3), padding="VALID"), linen.relu])
    images = jax.random.normal(jax.random.key(0), (8, 12, 12, 2))
    variables = model.init(jax.random.key(1), images)
    found = effective_field(model, variables, images, layer="layers_0", cell=(-1, -1))
    assert found.cell == (9, 9)
    assert found.support == (slice(9, 12), slice(9, 12))


def test_wrong_arguments():
    model, images = threes_sevens_net(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1))
    with pytest.raises(ValueError, match=r"layer must be one of 'blocks.0.conv', .* got 'conv9'"):
        effective_field(model, images, layer="conv9")
    with pytest.raises(IndexError, match=r"cell \(14, 0\) is out of range: .* is 14×14"):
        effective_field(model, images, layer="blocks.0.conv", cell=(14, 0))
