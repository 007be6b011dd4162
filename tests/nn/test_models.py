import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn.models import ConvNet, LinearNet, broken_net, digits_net, threes_sevens_net
from convjax.ops.layout import resolve_layout
from tests.helpers import LAYOUTS, reorder


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


forward = nnx.jit(lambda model, images: model(images))


def counts(make, **settings):
    """Returns the number of parameters of each layer; nothing is computed."""
    model = nnx.eval_shape(lambda: make(**settings, rngs=nnx.Rngs(0)))
    layers = model.blocks if isinstance(model, ConvNet) else model.layers
    return [
        sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))) for layer in layers
    ]


def shape_of(function, *images):
    """Returns the shape of a function's result for images of this shape; nothing is computed."""
    return nnx.eval_shape(function, jax.ShapeDtypeStruct(images, jnp.float32)).shape


def test_relu_asks_its_output_where_a_convolution_is_before_it():
    def asks_output(**settings):
        model = ConvNet((1, 2, 3), **settings, rngs=nnx.Rngs(0))
        return model.blocks[0].relu.by_output

    assert asks_output()
    assert not asks_output(norm="batch")
    assert asks_output(norm="batch", activate_first=True)


# --- the chapter's networks --------------------------------------------------------------------


def test_chapter_networks_have_the_published_numbers_of_parameters():
    assert counts(threes_sevens_net) == [40, 296, 1168, 4640, 578]
    assert sum(counts(threes_sevens_net)) == 6_722
    # 784·30 + 30 and 30 + 1.
    assert counts(LinearNet) == [23_550, 31]
    assert sum(counts(LinearNet)) == 23_581
    # 5·5·8 + 8, then 3·3·in·out + out.
    assert counts(digits_net) == [208, 1168, 4640, 18_496, 5770]
    # Colour images, and as many classes as there are.
    assert counts(digits_net, in_features=3, classes=7)[::4] == [608, 64 * 9 * 7 + 7]
    assert counts(threes_sevens_net, in_features=3, classes=5)[::4] == [112, 32 * 9 * 5 + 5]
    # Batch norm after each layer: twice its channels.
    with_norm = counts(digits_net, norm="batch")
    assert with_norm == [208 + 16, 1168 + 32, 4640 + 64, 18_496 + 128, 5770 + 20]


@pytest.mark.parametrize("layout", [*LAYOUTS, "auto"])
def test_conv_net_shapes_of_outputs_and_features(layout):
    networks = {
        digits_net: ({"C": 10, "H": 1, "W": 1}, 10),
        threes_sevens_net: ({"C": 2, "H": 1, "W": 1}, 2),
        # The chapter's mistake: the output is a 28×28 map for every image instead of classes.
        broken_net: ({"C": 1, "H": 28, "W": 28}, 784),
    }
    axes = resolve_layout(layout)
    for network, (sizes, outputs) in networks.items():

        def make(network=network):
            return network(layout=layout, rngs=nnx.Rngs(0))

        features = shape_of(lambda images, make=make: make().features(images), 3, 28, 28, 1)
        assert features == tuple((sizes | {"N": 3})[letter] for letter in axes)
        assert shape_of(lambda images, make=make: make()(images), 3, 28, 28, 1) == (3, outputs)


def test_linear_net_output_shape():
    assert shape_of(lambda images: LinearNet(rngs=nnx.Rngs(0))(images), 3, 28, 28, 1) == (3, 1)


def test_digits_net_halves_the_map_at_each_layer():
    def maps(images):
        found = []
        for block in digits_net(layout="NHWC", rngs=nnx.Rngs(0)).blocks:
            images = block(images)
            found.append(images)
        return found

    found = nnx.eval_shape(maps, jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32))
    sizes = [x.shape[1:] for x in found]
    assert sizes == [(14, 14, 8), (7, 7, 16), (4, 4, 32), (2, 2, 64), (1, 1, 10)]


# --- what they compute -------------------------------------------------------------------------


def test_conv_net_against_lax_convolutions():
    model = ConvNet((2, 3, 4), kernel_sizes=(5, 3), layout="NHWC", rngs=nnx.Rngs(0))
    x = draw(2, 9, 7, 2)
    y = jnp.asarray(x)
    for i, (block, pad) in enumerate(zip(model.blocks, (2, 1), strict=True)):
        y = jax.lax.conv_general_dilated(
            y,
            block.conv.kernel[...],
            (2, 2),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y + block.conv.bias[...]
        if i == 0:
            y = jnp.maximum(y, 0)
            assert (y == 0).any()  # so that a missing ReLU would fail
    # Sums of 50 products of order 1 in float32.
    features = nnx.jit(lambda model, x: model.features(x))(model, x)
    np.testing.assert_allclose(features, y, atol=1e-5)
    # Flattened channels first, as PyTorch does: 4 maps of 3×2.
    flat = np.asarray(y).transpose(0, 3, 1, 2).reshape(2, 24)
    np.testing.assert_allclose(forward(model, x), flat, atol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "CHWN", "auto"])
def test_conv_net_is_the_same_in_every_layout(layout):
    # The last map is 2×1, so that the order of flattening matters; both modes of batch norm.
    images = draw(5, 7, 4, 2)
    settings = {"kernel_sizes": (5, 3), "norm": "batch"}
    first, second = (
        ConvNet((2, 3, 4), layout=name, rngs=nnx.Rngs(0), **settings) for name in ("NHWC", layout)
    )
    # A seed gives the same network in every layout.
    for one, other in zip(first.blocks, second.blocks, strict=True):
        np.testing.assert_array_equal(other.conv.kernel[...], one.conv.kernel[...])
    for _ in range(2):
        expected = forward(first, images)
        assert expected.shape == (5, 8)
        # Sums of 50 products and moments of 40 values of order 1 in float32, in another order.
        np.testing.assert_allclose(forward(second, images), expected, atol=5e-5)
        first.eval()
        second.eval()


def test_conv_net_applies_relu_after_the_norm_except_in_the_last_layer():
    model = ConvNet((2, 3, 4), norm="batch", rngs=nnx.Rngs(0))
    assert [block.relu is not None for block in model.blocks] == [True, False]
    assert all(block.norm is not None for block in model.blocks)
    images = draw(6, 8, 8, 2)
    hidden = forward(model.blocks[0], reorder(images, "NHWC", model.layout))
    assert (hidden >= 0).all()
    # After batch norm, ReLU sets about half of the values to 0, whatever the bias.
    assert 0.2 < float((hidden == 0).mean()) < 0.8
    assert (forward(model, images) < 0).any()


def test_linear_net_against_numpy():
    model = LinearNet((12, 5, 3), rngs=nnx.Rngs(0))
    images = draw(4, 2, 3, 2)
    first, second = ((np.asarray(l.kernel[...]), np.asarray(l.bias[...])) for l in model.layers)  # noqa: E741
    hidden = np.maximum(images.reshape(4, 12) @ first[0] + first[1], 0)
    # Sums of 12 products of order 1 in float32.
    np.testing.assert_allclose(model(images), hidden @ second[0] + second[1], atol=1e-6)


def test_networks_use_param_dtype_for_every_parameter():
    for make in (
        lambda: ConvNet((1, 2, 3), norm="batch", param_dtype=jnp.float16, rngs=nnx.Rngs(0)),
        lambda: LinearNet((4, 2), param_dtype=jnp.float16, rngs=nnx.Rngs(0)),
    ):
        parameters, others = nnx.state(nnx.eval_shape(make), nnx.Param, ...)
        assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {np.dtype(np.float16)}
        # Running statistics would stop changing in half precision.
        assert {leaf.dtype for leaf in jax.tree.leaves(others)} <= {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("channels", "settings", "message"),
    [
        ((1,), {}, r"channels must be the input's channels .*got \(1,\)"),
        ((), {}, r"channels must .*got \(\)"),
        ((1, 2, 3), {"kernel_sizes": (3,)}, r"one int or one per layer \(2\), got \(3,\)"),
        ((1, 2), {"norm": "local"}, "norm must be None or one of batch, layer, .*got 'local'"),
        ((1, 2), {"layout": "HWCN"}, "layout must be one of .*'CHWN' or 'auto', got 'HWCN'"),
        ((1, 2), {"kernel_sizes": 0}, "kernel_size must be at least 1, got 0"),
    ],
)
def test_conv_net_rejects_invalid_settings(channels, settings, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(channels, **settings, rngs=nnx.Rngs(0))


def test_conv_net_rejects_other_channels():
    model = ConvNet((1, 2), layout="NHWC", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"x must have 1 channels, as the kernel expects .*got 3"):
        model(np.zeros((1, 4, 4, 3), np.float32))


# --- other normalisations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "groups"),
    [("layer", [1, 1, 1]), ("group", [2, 1, 3]), ("instance", [8, 6, 12])],
)
def test_conv_net_groups_of_each_norm(norm, groups):
    model = ConvNet((1, 8, 6, 12), norm=norm, rngs=nnx.Rngs(0))
    assert [block.norm.groups for block in model.blocks] == groups


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "instance"])
def test_conv_net_without_norm_in_the_last_layer(norm):
    settings = {"norm": norm, "norm_last": False, "layout": "NCHW"}
    model = ConvNet((1, 8, 4), **settings, rngs=nnx.Rngs(0))
    assert model.blocks[0].norm is not None
    assert model.blocks[1].norm is None


def test_conv_net_activate_first():
    x = draw(4, 8, 8, 2)
    models = [
        ConvNet((2, 3, 2), norm="batch", activate_first=first, layout="NHWC", rngs=nnx.Rngs(0))
        for first in (False, True)
    ]
    after, before = (model.blocks[0](x) for model in models)
    # Normalised last, the outputs have mean 0; activated last, none is negative.
    np.testing.assert_allclose(before.mean((0, 1, 2)), 0, atol=1e-5)
    assert before.min() < 0 <= after.min()
    conv = nnx.relu(models[1].blocks[0].conv(x))
    np.testing.assert_allclose(before, models[1].blocks[0].norm(conv), rtol=1e-5, atol=1e-6)


def test_digits_net_first_kernel():
    assert counts(digits_net, first_kernel=3) == [80, 1168, 4640, 18_496, 5770]
