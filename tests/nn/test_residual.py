"""Residual networks: published sizes, what they compute, and every layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convjax
from convjax.nn import ResNet, cifar_resnet, resnet18, resnet34, resnet50
from tests.helpers import LAYOUTS

forward = nnx.jit(lambda model, x: model(x))


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def abstract(make, **settings):
    """Returns a network without numbers; nothing is computed."""
    return nnx.eval_shape(lambda: make(**settings, rngs=nnx.Rngs(0)))


def summary_of(model, size):
    return convjax.summary(model, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))


# --- published sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "parameters", "multiplications"),
    [
        (resnet18, 11_689_512, 1_814_073_344),
        (resnet34, 21_797_672, 3_663_761_408),
        (resnet50, 25_557_032, 4_089_184_256),
    ],
)
def test_networks_for_imagenet_have_the_published_sizes(make, parameters, multiplications):
    found = summary_of(abstract(make), 224)
    assert found.parameters == parameters
    # The tables count convolutions and the linear layer.
    counted = [row.multiplications for row in found.rows if row.kind in ("Conv", "Linear")]
    assert sum(counted) == multiplications
    # Mean and variance of every norm.
    norms = [row for row in found.rows if row.kind == "BatchNorm"]
    assert found.batch_statistics == sum(row.parameters for row in norms)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_networks_for_cifar_have_the_sizes_of_table_6(depth, millions):
    model = abstract(cifar_resnet, depth=depth)
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(leaf.size for leaf in leaves) / 1e6 == pytest.approx(millions, abs=0.05 * millions)
    digits = 1 if depth == 110 else 2
    assert round(sum(leaf.size for leaf in leaves) / 1e6, digits) == millions
    # Convolutions and the linear layer are the layers that the depth counts.
    assert sum(leaf.ndim in (2, 4) for leaf in leaves) == depth


@pytest.mark.parametrize(
    ("make", "kernels", "pixels"),
    [
        (resnet18, [[3] * 4] * 4, 435),
        (resnet34, [[3] * 6, [3] * 8, [3] * 12, [3] * 6], 899),
        (resnet50, [[3] * 3, [3] * 4, [3] * 6, [3] * 3], 427),  # 1×1 kernels see no further
    ],
)
def test_receptive_field_of_the_last_maps(make, kernels, pixels):
    # 7×7 and 3×3 pixels with stride 2 each, then one stride of 2 at the first kernel of a stage.
    side, jump = 1 + 6 + 2 * 2, 4
    for stage, sizes in enumerate(kernels):
        for i, kernel in enumerate(sizes):
            side += (kernel - 1) * jump
            jump *= 2 if stage and i == 0 else 1
    assert side == pixels
    rows = summary_of(abstract(make, layout="NHWC"), 224).rows
    assert rows[-2].receptive_field == (pixels, pixels)


def test_projections_are_where_the_shape_changes():
    model = abstract(ResNet, depths=(2, 2), widths=(4, 8), stem="small")
    found = [[block.projection is not None for block in stage] for stage in model.stages]
    assert found == [[False, False], [True, False]]
    # The first bottleneck expands the channels, with stride 1.
    model = abstract(ResNet, depths=(2, 2), widths=(4, 8), block="bottleneck")
    found = [[block.projection is not None for block in stage] for stage in model.stages]
    assert found == [[True, False], [True, False]]
    assert [stage[0].projection.conv.stride for stage in model.stages] == [1, 2]


def test_maps_of_each_stage():
    def maps(images):
        model = resnet50(layout="NHWC", classes=7, rngs=nnx.Rngs(0))
        x = model.stem(images)
        found = [x, model.pool(x)]
        x = found[-1]
        for stage in model.stages:
            for block in stage:
                x = block(x)
            found.append(x)
        return [*found, model(images)]

    shapes = [x.shape for x in nnx.eval_shape(maps, jax.ShapeDtypeStruct((2, 64, 96, 3), "f4"))]
    assert shapes == [
        (2, 32, 48, 64), (2, 16, 24, 64), (2, 16, 24, 256), (2, 8, 12, 512), (2, 4, 6, 1024),
        (2, 2, 3, 2048), (2, 7),
    ]  # fmt: skip


# --- initial weights ----------------------------------------------------------------------------


def test_zero_init_of_a_network():
    settings = {"depths": (2, 2), "widths": (4, 8), "stem": "small", "rngs": nnx.Rngs(0)}
    blocks = [block for stage in ResNet(**settings).stages for block in stage]
    assert not any(block.layers[-1].norm.scale[...].any() for block in blocks)
    assert all((block.layers[0].norm.scale[...] == 1).all() for block in blocks)
    # Nothing would pass a plain network.
    for other in ({"shortcut": None}, {"zero_init": False}):
        blocks = [block for stage in ResNet(**settings, **other).stages for block in stage]
        assert all((block.layers[-1].norm.scale[...] == 1).all() for block in blocks)
    # Without norms the last kernel is 0, and every convolution has a bias, of 0.
    blocks = [block for stage in ResNet(**settings, norm=None).stages for block in stage]
    assert all(not block.layers[-1].conv.kernel[...].any() for block in blocks)
    assert all(block.layers[0].conv.kernel[...].any() for block in blocks)
    assert all(not block.layers[0].conv.bias[...].any() for block in blocks)


def test_kernels_are_normal_with_the_deviation_of_torchvision():
    model = ResNet((1,), (32,), stem="small", in_features=16, zero_init=False, rngs=nnx.Rngs(0))
    for layer in (model.stem, *model.stages[0][0].layers):
        kernel = np.asarray(layer.conv.kernel[...])
        scaled = kernel / np.sqrt(2 / (9 * 32))
        # The standard error of a deviation of n normal numbers is 1/√(2n), n ≥ 4608.
        assert scaled.std() == pytest.approx(1, abs=4 / np.sqrt(2 * kernel.size))
        assert np.abs(scaled).max() > 3  # a uniform distribution ends at √3
        assert layer.conv.bias is None


# --- layouts, dtypes, training ------------------------------------------------------------------


@pytest.mark.parametrize("layout", [*LAYOUTS[1:], "auto"])
@pytest.mark.parametrize(
    "settings",
    [
        {"block": "basic", "shortcut": "padding", "stem": "small"},
        {"block": "bottleneck", "stem": "imagenet"},
        {"block": "basic", "shortcut": None, "norm": "group", "stem": "small"},
        {"block": "bottleneck", "norm": None, "stem": "small"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_resnet_is_the_same_in_every_layout(layout, settings):
    images = draw(3, 13, 10, 3)
    models = [
        ResNet(
            (1, 2), (4, 8), classes=5, zero_init=False, layout=name, rngs=nnx.Rngs(0), **settings
        )
        for name in ("NHWC", layout)
    ]
    states = [nnx.to_pure_dict(nnx.state(model, nnx.Param)) for model in models]
    jax.tree.map(np.testing.assert_array_equal, *states)
    for mode in ("train", "eval"):
        for model in models:
            getattr(model, mode)()
        expected, found = (forward(model, images) for model in models)
        assert expected.shape == (3, 5)
        # Nine layers of sums of at most 72 products in float32, in another order.
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_dtypes_of_computation_and_parameters():
    settings = {"depth": 8, "rngs": nnx.Rngs(0)}
    model = cifar_resnet(**settings, dtype=jnp.bfloat16)
    assert forward(model, draw(2, 8, 8, 3)).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {np.dtype("float32")}
    half = cifar_resnet(**settings, param_dtype=jnp.float16)
    parameters, others = nnx.state(half, nnx.Param, ...)
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {np.dtype("float16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(others)} == {np.dtype("float32")}


def test_gradients_reach_every_layer_but_those_before_a_zero():
    images, labels = draw(4, 8, 8, 3), jnp.arange(4)

    def norms(**settings):
        model = cifar_resnet(8, rngs=nnx.Rngs(0), **settings)

        def loss(model):
            return -jax.nn.log_softmax(model(images))[jnp.arange(4), labels].mean()

        gradients = nnx.to_flat_state(nnx.jit(nnx.grad(loss))(model))
        return {".".join(map(str, k)): float(jnp.abs(v[...]).max()) for k, v in gradients}

    assert min(norms(zero_init=False).values()) > 0
    assert min(norms(shortcut=None).values()) > 0
    found = norms()
    # A scale of 0 stops the gradient of what is before it in the block, and of nothing else.
    stopped = {name for name, value in found.items() if value == 0}
    inside = {
        n for n in found if ".layers." in n and not n.endswith(("1.norm.scale", "1.norm.bias"))
    }
    assert stopped == inside


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": (2, 2)}, r"one number per stage each, got 2 and 4: \(2, 2\) and \(64, 128"),
        ({"depths": (), "widths": ()}, "one number per stage each, got 0 and 0"),
        ({"depths": (1, 0, 1, 1)}, "depths must be at least 1, got 0"),
        ({"block": "bottelneck"}, "block must be one of 'basic', .*; did you mean 'bottleneck'?"),
        ({"stem": "cifar"}, r"stem must be one of 'imagenet', 'small', got 'cifar'\."),
        ({"stem": None}, "stem must be one of 'imagenet', 'small', got None"),
        ({"shortcut": "A"}, "shortcut must be one of 'projection', 'padding' or None, got 'A'"),
        ({"norm": "local"}, "norm must be one of 'batch', .* or None, got 'local'"),
        ({"layout": "HWCN"}, "layout must be one of .*'CHWN' or 'auto', got 'HWCN'"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"in_features": 0}, "in_features must be at least 1, got 0"),
    ],
)
def test_resnet_rejects_invalid_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**{"depths": (1, 1, 1, 1), **settings}, rngs=nnx.Rngs(0))


def test_cifar_resnet_and_types_of_settings():
    for depth in (18, 21):
        with pytest.raises(ValueError, match=rf"depth must be 6n \+ 2, .*got {depth}\."):
            cifar_resnet(depth, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"depths must be a whole number, got float: 1\.5"):
        ResNet((1.5,), (4,), rngs=nnx.Rngs(0))
