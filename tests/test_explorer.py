import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax import broken_net, capture, conv2d, digits_net
from convjax.explorer import (
    LARGEST_SIDE,
    Affine,
    Convolution,
    Dense,
    MaxPool,
    Relu,
    layers_of,
    page,
    page_data,
)
from convjax.models import LinearNet
from convjax.precedents import Windows

IMAGE = np.arange(12.0).reshape(1, 3, 4)


def test_data_by_hand():
    kernel = np.arange(8.0).reshape(2, 1, 2, 2)
    steps = [Affine([2, 3], [0.5, 0]), Relu()]
    found = page_data(
        IMAGE,
        [
            Convolution("first", kernel, [1, -1], (1, 2), "same", steps=steps, channels=["a", "b"]),
            MaxPool("pool", Windows(2, stride=2, padding=((0, 1), (0, 0)))),
            Dense("unit", np.full((1, 2, 2, 1), 7.0)),
        ],
    )
    assert found["image"] == {
        "channels": 1,
        "height": 3,
        "width": 4,
        "values": list(range(12)),
    }
    first, pool, unit = found["layers"]
    assert first == {
        "kind": "conv",
        "name": "first",
        "kernel_size": [2, 2],
        "stride": [1, 2],
        "padding": [[0, 1], [0, 0]],  # 3 rows stay 3, 4 columns become 2
        "dilation": [1, 1],
        "filters": 2,
        "kernel": list(range(8)),
        "bias": [1, -1],
        "steps": [
            {"kind": "affine", "name": "batch norm", "scale": [2, 3], "shift": [0.5, 0]},
            {"kind": "relu"},
        ],
        "channels": ["a", "b"],
    }
    assert pool == {
        "kind": "pool",
        "name": "pool",
        "kernel_size": [2, 2],
        "stride": [2, 2],
        "padding": [[0, 1], [0, 0]],
        "dilation": [1, 1],
    }
    assert (unit["kind"], unit["kernel_size"], unit["bias"]) == ("dense", [2, 1], None)
    assert unit["kernel"] == [7] * 4


def test_numbers_survive_to_the_last_bit():
    kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 3))
    text = page("numbers", IMAGE, [Convolution("conv", kernel)])
    (start,) = (i for i in range(len(text)) if text.startswith('id="data">', i))
    data = json.loads(text[start + len('id="data">') : text.index("</script>", start)])
    assert data["layers"][0]["kernel"] == kernel.ravel().tolist()


def test_names_are_escaped_and_nothing_is_fetched():
    text = page("<b>", IMAGE, [Convolution("</script><i>", np.ones((1, 1, 2, 2)))], about="a & b")
    assert "<title>&lt;b&gt;</title>" in text
    assert "a &amp; b" in text
    assert "</script><i>" not in text
    assert not any(word in text for word in ("http", "src=", "href=", "@import", "url("))


def evaluated(layers, image):
    """The layers by `conv2d` in float64, on an image (C, H, W)."""
    x = jnp.asarray(image)[None]
    for layer in layers:
        settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        x = conv2d(x, jnp.asarray(layer.kernel), jnp.asarray(layer.bias), layout="NCHW", **settings)
        for step in layer.steps:
            if isinstance(step, Relu):
                x = nnx.relu(x)
            else:
                x = x * step.scale[:, None, None] + step.shift[:, None, None]
    return np.asarray(x[0])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm": "batch"},
        {"norm": "batch", "activate_first": True},
        {"norm": "batch", "norm_last": False},
    ],
)
def test_layers_of_a_network_compute_the_network(layout, settings, x64):
    model = digits_net(
        in_features=3, layout=layout, param_dtype=np.float64, rngs=nnx.Rngs(0), **settings
    )
    rng = np.random.default_rng(1)
    for _, module in nnx.iter_modules(model):
        if isinstance(getattr(module, "mean", None), nnx.BatchStat):
            for variable in (module.mean, module.bias):
                variable[...] = rng.normal(size=variable.shape)
            for variable in (module.var, module.scale):
                variable[...] = rng.uniform(0.5, 2, variable.shape)
    model.eval()
    image = rng.normal(size=(3, 28, 28))
    logits, outputs = capture(model, jnp.asarray(image.transpose(1, 2, 0)[None]))
    assert len(outputs) >= 5
    found = evaluated(layers_of(model), image)
    # Float64 in both, in another order.
    np.testing.assert_allclose(found.ravel(), logits[0], rtol=1e-10, atol=1e-10)
    assert [layer.name for layer in layers_of(model)] == [f"conv {i}" for i in range(1, 6)]


def test_networks_that_cannot_be_traced():
    for norm in ("layer", "group", "instance"):
        model = digits_net(norm=norm, norm_last=False, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match=r"no norm but batch norm, got GroupNorm in blocks\.0"):
            layers_of(model)
    with pytest.raises(TypeError, match=r"chain of convolutions \(ConvNet\), got LinearNet"):
        layers_of(LinearNet(rngs=nnx.Rngs(0)))
    model = broken_net(rngs=nnx.Rngs(0))
    model.blocks[1].conv.groups = 2
    with pytest.raises(ValueError, match=r"got groups=2 in blocks\.1"):
        layers_of(model)


ONES = np.ones((1, 1, 2, 2))


@pytest.mark.parametrize(
    ("image", "layers", "message"),
    [
        (IMAGE[0], [Convolution("c", ONES)], r"image must have the axes \(channels, height, width"),
        (IMAGE * np.nan, [Convolution("c", ONES)], "image must hold finite numbers, got 12 of 12"),
        (np.ones((1, 2, LARGEST_SIDE + 1)), [Convolution("c", ONES)], "image must have at most"),
        (IMAGE, [], "layers must hold at least one layer"),
        (IMAGE, [Convolution("c", ONES[0])], r"layer 'c': kernel must have the axes \(O, I"),
        (IMAGE, [Convolution("c", np.ones((1, 2, 2, 2)))], "input channels as the map before, 1"),
        (IMAGE, [Convolution("c", ONES, [1, 2])], r"bias must have one number .* \(1,\)"),
        (IMAGE, [Convolution("c", ONES, [np.inf])], "bias must hold finite numbers, got 1 of 1"),
        (IMAGE, [Convolution("c", ONES, channels=["a", "b"])], "one name per output, 1, got 2"),
        (IMAGE, [Convolution("c", ONES, steps=[Affine([1], [1, 2])])], "shift must have one"),
        (IMAGE, [Convolution("c", ONES, stride=0)], "layer 'c': stride must be at least 1"),
        (IMAGE, [Convolution("c", ONES, dilation=3)], "layer 'c': the kernel is larger than"),
        (IMAGE, [Convolution("c", ONES, padding=99)], "output must have at most 128 cells"),
        (IMAGE, [MaxPool("p", Windows(2, padding=2))], "every window of the pool a cell"),
        (IMAGE, [MaxPool("p", Windows(2, padding=((0, 0), (0, 2))))], "every window of the pool"),
        (IMAGE, [Dense("d", np.ones((1, 1, 4, 3)))], r"whose shape is \(1, 3, 4\), got the shape"),
    ],
)
def test_what_does_not_fit(image, layers, message):
    with pytest.raises(ValueError, match=message):
        page_data(image, layers)


def test_settings_that_are_no_integers():
    with pytest.raises(TypeError, match="layer 'c': stride must be an int"):
        page_data(IMAGE, [Convolution("c", ONES, stride=1.5)])
