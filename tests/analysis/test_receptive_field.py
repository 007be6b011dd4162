"""Receptive fields of networks by formula, against published figures and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from convjax.analysis.receptive_field import receptive_fields
from convjax.nn.models import ConvNet, digits_net, threes_sevens_net
from convjax.ops.conv import conv2d
from experiments.receptive_fields.published import IMAGE, NETWORKS
from tests.analysis.tracing import WHOLE, field, shapes_hold  # noqa: F401  # a fixture

# --- networks of Flax ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
@pytest.mark.parametrize("method", ["lax", "matmul"])
def test_receptive_fields_of_the_first_network_in_every_layout(layout, method):
    model = nnx.eval_shape(
        lambda: threes_sevens_net(layout=layout, method=method, rngs=nnx.Rngs(0))
    )
    fields = receptive_fields(model, jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32))
    assert [f.size for f in fields.values()] == [(n, n) for n in (3, 7, 15, 31, 63, 63)]
    assert [f.stride for f in fields.values()][:5] == [(n, n) for n in (2, 4, 8, 16, 32)]
    assert [f.padding for f in fields.values()][:5] == [(n, n) for n in (1, 3, 7, 15, 31)]
    assert [f.cells for f in fields.values()] == [*((n, n) for n in (14, 7, 4, 2, 1)), None]
    assert list(fields)[-1] == "(output)"


def test_receptive_fields_ignore_batch_norm_and_keep_the_model():
    model = ConvNet((1, 2, 2), norm="batch", rngs=nnx.Rngs(0))
    model.train()
    before = nnx.graphdef(model)
    fields = receptive_fields(model, jnp.ones((2, 8, 8, 1)))
    assert fields["blocks.0.norm"] == fields["blocks.0.conv"]
    assert nnx.graphdef(model) == before


@pytest.mark.parametrize(("norm", "whole"), [("batch", False), ("group", True)])
def test_receptive_fields_are_infinite_after_a_norm_over_the_map(norm, whole):
    model = nnx.eval_shape(lambda: digits_net(norm=norm, rngs=nnx.Rngs(0)))
    fields = receptive_fields(model, jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32))
    assert (fields["blocks.1.conv"].size == WHOLE) == whole


class Several(linen.Module):
    """Branches of two sizes, pooling, squeeze and excitation, a transposed convolution."""

    gate: bool = False

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), name="first")(x))
        short = linen.Conv(4, (1, 1), (2, 2), name="short")(x)
        x = short + linen.Conv(4, (3, 3), (2, 2), padding=1, name="long")(x)
        if self.gate:
            scale = linen.sigmoid(linen.Dense(4, name="gate")(x.mean((1, 2))))
            x = x * scale[:, None, None]
        x = linen.max_pool(x, (2, 2), (2, 2))
        return linen.ConvTranspose(2, (2, 2), (2, 2), name="up")(x)


@pytest.mark.parametrize("gate", [False, True])
def test_receptive_fields_of_a_linen_network_with_branches(gate):
    model, images = Several(gate), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    # Shapes are enough for the parameters, too.
    zeros = jnp.zeros(images.shape)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), zeros))
    fields = receptive_fields(model, variables, images)
    assert (fields["first"].size, fields["short"].size) == ((3, 3), (3, 3))
    assert (fields["long"].size, fields["long"].stride) == ((5, 5), (2, 2))
    if gate:
        assert fields["gate"].size == fields["up"].size == WHOLE
        assert fields["gate"].cells is None
    else:
        # One pooled cell sees 7; the two phases of the larger map lie 2 pixels apart.
        assert (fields["up"].size, fields["up"].stride) == ((9, 9), (2, 2))
        assert fields["up"].cells == (16, 16)


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_fields_equal_the_published_ones(name):
    make, published = NETWORKS[name]
    model, images = make(), jax.ShapeDtypeStruct((1, IMAGE, IMAGE, 1), jnp.float32)
    zeros = jnp.zeros(images.shape)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), zeros))
    found = receptive_fields(model, variables, images)["(output)"]
    assert (found.size, found.stride, found.padding) == tuple((n, n) for n in published)


# google-research/receptive_field lists these for VGG-16: (size, stride, padding).
VGG_LAYERS = {
    "Conv_0": (3, 1, 1),
    "Conv_2": (10, 2, 4),
    "Conv_4": (24, 4, 10),
    "Conv_5": (32, 4, 14),
    "Conv_7": (60, 8, 26),
    "Conv_8": (76, 8, 34),
    "Conv_10": (132, 16, 58),
    "Conv_11": (164, 16, 74),
}


def test_receptive_fields_of_layers_equal_the_published_ones():
    model, images = NETWORKS["VGG-16"][0](), jax.ShapeDtypeStruct((1, 224, 224, 1), jnp.float32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(images.shape)))
    fields = receptive_fields(model, variables, images)
    for name, figures in VGG_LAYERS.items():
        found = fields[name]
        assert (found.size, found.stride, found.padding) == tuple((n, n) for n in figures)


def test_receptive_fields_of_a_layer_named_output():
    class Named(nnx.Module):
        def __init__(self, rngs):
            self.output = nnx.Conv(1, 1, (3, 3), rngs=rngs)
            self.last = nnx.Conv(1, 1, (3, 3), rngs=rngs)

        def __call__(self, x):
            return self.last(self.output(x))

    fields = receptive_fields(Named(nnx.Rngs(0)), jnp.ones((1, 8, 8, 1)))
    assert {name: field.size for name, field in fields.items()} == {
        "output": (3, 3),
        "last": (5, 5),
        "(output)": (5, 5),
    }


def test_receptive_fields_of_a_scanned_stack_are_those_of_each_depth():
    class Loop(linen.Module):
        @linen.compact
        def __call__(self, x):
            layer = linen.scan(
                lambda conv, x, _: (conv(x), None),
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True},
                length=3,
            )
            return layer(linen.Conv(1, (3, 3), name="conv"), x, None)[0]

    model, images = Loop(), jnp.ones((1, 16, 16, 1))
    variables = model.init(jax.random.key(0), images)
    fields = receptive_fields(model, variables, images)
    sizes = {name: field.size for name, field in fields.items()}
    wanted = {"conv[0]": (3, 3), "conv[1]": (5, 5), "conv[2]": (7, 7), "(output)": (7, 7)}
    assert sizes == wanted


def test_receptive_field_box_ends_at_the_border():
    found = field(lambda x: conv2d(x, jnp.ones((5, 3, 1, 1)), stride=2, padding=(2, 1)))
    assert found.cells == (16, 16)
    assert found.box((0, 3), (32, 32)) == (slice(0, 3), slice(5, 8))
    assert found.box((15, 15), (32, 32)) == (slice(28, 32), slice(29, 32))
    assert found.box((-1, -1), (32, 32)) == found.box((15, 15), (32, 32))
    with pytest.raises(IndexError, match=r"cell must be in the map of 16×16, got \(16, 0\)"):
        found.box((16, 0), (32, 32))
    assert field(lambda x: x.mean((1, 2))).box((0, 0), (9, 7)) == (slice(0, 9), slice(0, 7))


# --- errors ----------------------------------------------------------------------------------


def test_receptive_fields_reject_wrong_arguments():
    model = nnx.eval_shape(lambda: threes_sevens_net(rngs=nnx.Rngs(0)))
    with pytest.raises(TypeError, match="an array and the last argument, got none"):
        receptive_fields(model)
    with pytest.raises(TypeError, match=r"\(variables, images\) for a Linen module"):
        receptive_fields(linen.Conv(2, (3, 3)), jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(TypeError, match="last argument, got str"):
        receptive_fields(model, "images")
    with pytest.raises(ValueError, match=r"four axes NHWC, .* got shape \(28, 28\)"):
        receptive_fields(model, np.zeros((28, 28)))
    with pytest.raises(ValueError, match="layout must be one of"):
        receptive_fields(model, np.zeros((1, 28, 28, 1)), layout="HWC")
