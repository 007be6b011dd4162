import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from convjax.analysis._effective_field import EffectiveField, effective_field
from convjax.nn.models import threes_sevens_net
from convjax.ops.conv import conv2d
from convjax.ops.layout import permutation


def test_effective_field_of_one_convolution_by_hand():
    """One channel: the gradient is the kernel, times a random number."""
    kernel = np.arange(9.0, dtype=np.float32).reshape(3, 3)

    def named(x):
        return conv2d(x, kernel[:, :, None, None], padding=1, method="lax"), {"x": x}

    found = effective_field(named, jnp.zeros((1, 8, 8, 1)), layer="(output)", cell=(2, 3))
    assert found.cell == (2, 3)
    assert found.support == (slice(1, 4), slice(2, 5))
    around = found.magnitude[1:4, 2:5]
    np.testing.assert_allclose(around / around[2, 2], kernel / 8, rtol=1e-6)  # float32
    # 4.55 % of 8 is 0.364: all but the weight of 0 count.
    assert found.effective_size == pytest.approx(np.sqrt(8))


def test_effective_field_sizes():
    magnitude = np.zeros((9, 7))
    magnitude[2:6, 1:4] = 0.04
    magnitude[3:5, 2] = 1
    found = EffectiveField("x", (0, 0), magnitude)
    assert found.size == (4, 3)
    assert found.effective_size == pytest.approx(np.sqrt(2))
    nothing = EffectiveField("x", (0, 0), np.zeros((3, 3)))
    assert (nothing.size, nothing.effective_size) == ((0, 0), 0)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
def test_effective_field_in_every_layout(layout):
    """The same weights in every layout of the network: the same magnitudes."""
    images = jax.random.normal(jax.random.key(0), (4, 28, 28, 1))
    model = threes_sevens_net(layout=layout, rngs=nnx.Rngs(0))
    reference = threes_sevens_net(layout="NHWC", rngs=nnx.Rngs(0))
    found = effective_field(model, images, layer="blocks.1.conv")
    expected = effective_field(reference, images, layer="blocks.1.conv")
    assert found.magnitude.shape == (28, 28)
    assert found.support == expected.support == (slice(9, 16), slice(9, 16))
    if layout != "CHWN":  # whose random numbers, drawn per image and channel, lie in another order
        # Sums of tens of products in float32, in another order.
        np.testing.assert_allclose(found.magnitude, expected.magnitude, rtol=1e-4, atol=1e-6)

    def turned(x):
        """A function that takes and returns NCHW."""
        return model.blocks[0](x.transpose(permutation("NCHW", layout))).transpose(
            permutation(layout, "NCHW")
        ), {"x": x}

    pixels = images.transpose(0, 3, 1, 2)
    found = effective_field(turned, pixels, layer="(output)", layout="NCHW", cell=(3, 5))
    expected = effective_field(reference.blocks[0], images, layer="conv", cell=(3, 5))
    assert found.support == expected.support == (slice(5, 8), slice(9, 12))


def test_effective_field_where_the_formula_is_unknown():
    model = nnx.Sequential(nnx.Conv(1, 2, (3, 3), padding="CIRCULAR", rngs=nnx.Rngs(0)))
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    found = effective_field(model, images, layer="layers.0", cell=(0, 4))
    # Around the edge: the last row and the first two.
    assert np.flatnonzero(found.magnitude.any(1)).tolist() == [0, 1, 7]


def test_effective_field_of_a_linen_network():
    model = linen.Sequential([linen.Conv(3, (3, 3), padding="VALID"), linen.relu])
    images = jax.random.normal(jax.random.key(0), (8, 12, 12, 2))
    variables = model.init(jax.random.key(1), images)
    found = effective_field(model, variables, images, layer="layers_0", cell=(-1, -1))
    assert found.cell == (9, 9)
    assert found.support == (slice(9, 12), slice(9, 12))


def test_effective_field_rejects_wrong_arguments():
    model, images = threes_sevens_net(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1))
    with pytest.raises(ValueError, match=r"layer must be one of 'blocks.0.conv', .* got 'conv9'"):
        effective_field(model, images, layer="conv9")
    with pytest.raises(ValueError, match=r"rows and columns, got '\(output\)' of shape \(1, 2\)"):
        effective_field(model, images, layer="(output)")
    with pytest.raises(IndexError, match=r"cell must be in the map of 14×14, .*\(14, 0\)"):
        effective_field(model, images, layer="blocks.0.conv", cell=(14, 0))
    with pytest.raises(TypeError, match=r"images must be floating-point, got ArrayImpl of uint8"):
        effective_field(model, images.astype(jnp.uint8), layer="blocks.0.conv")
    shapes = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    with pytest.raises(TypeError, match=r"images must be floating-point, got ShapeDtypeStruct"):
        effective_field(model, shapes, layer="blocks.0.conv")
    with pytest.raises(ValueError, match=r"four axes NHWC, none of them empty, got shape \(0, 28"):
        effective_field(model, images[:0], layer="blocks.0.conv")
    model.blocks[0].conv.kernel[...] *= jnp.nan
    with pytest.raises(ValueError, match=r"gradients of 'blocks.0.conv' must be finite"):
        effective_field(model, images, layer="blocks.0.conv")
