import json

import numpy as np
import pytest
from flax import nnx

from convjax import broken_net
from convjax.analysis._precedents import Windows
from convjax.explorer._page import LARGEST_SIDE, page, page_data
from convjax.explorer.layer_spec import (
    AffineSpec,
    ConvolutionSpec,
    DenseSpec,
    MaxPoolSpec,
    ReluSpec,
)

IMAGE = np.arange(12.0).reshape(1, 3, 4)


def test_page_data_by_hand():
    kernel = np.arange(8.0).reshape(2, 1, 2, 2)
    steps = [AffineSpec([2, 3], [0.5, 0]), ReluSpec()]
    found = page_data(
        IMAGE,
        [
            ConvolutionSpec(
                "first", kernel, [1, -1], (1, 2), "same", steps=steps, channels=["a", "b"]
            ),
            MaxPoolSpec("pool", Windows(2, stride=2, padding=((0, 1), (0, 0)))),
            DenseSpec("unit", np.full((1, 2, 2, 1), 7.0)),
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


def test_page_keeps_numbers_exactly():
    kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 3))
    text = page("numbers", IMAGE, [ConvolutionSpec("conv", kernel)])
    (start,) = (i for i in range(len(text)) if text.startswith('id="data">', i))
    data = json.loads(text[start + len('id="data">') : text.index("</script>", start)])
    assert data["layers"][0]["kernel"] == kernel.ravel().tolist()


def test_page_escapes_names_and_fetches_nothing():
    text = page(
        "<b>", IMAGE, [ConvolutionSpec("</script><i>", np.ones((1, 1, 2, 2)))], about="a & b"
    )
    assert "<title>&lt;b&gt;</title>" in text
    assert "a &amp; b" in text
    assert "</script><i>" not in text
    assert not any(word in text for word in ("http", "src=", "href=", "@import", "url("))


ONES = np.ones((1, 1, 2, 2))
MAP = r"layer 'e': kernel .* as the map before, 1, got 3: .* that of the map before \(1, 1, 2\)"


@pytest.mark.parametrize(
    ("image", "layers", "message"),
    [
        (
            IMAGE[0],
            [ConvolutionSpec("c", ONES)],
            r"image must have the axes \(channels, height, width",
        ),
        (
            IMAGE * np.nan,
            [ConvolutionSpec("c", ONES)],
            "image must hold finite numbers, got 12 of 12",
        ),
        (
            np.ones((1, 2, LARGEST_SIDE + 1)),
            [ConvolutionSpec("c", ONES)],
            "image must have at most",
        ),
        (IMAGE, [], "layers must hold at least one layer"),
        (IMAGE, [ConvolutionSpec("c", ONES[0])], r"layer 'c': kernel must have the axes \(O, I"),
        (
            IMAGE,
            [ConvolutionSpec("c", np.ones((1, 2, 2, 2)))],
            "input channels as the image, 1, got 2",
        ),
        (
            IMAGE,
            [ConvolutionSpec("c", ONES)] * 2 + [ConvolutionSpec("e", np.ones((1, 3, 1, 1)))],
            MAP,
        ),
        (IMAGE, [ConvolutionSpec("c", ONES, [1, 2])], r"bias must have one number .* \(1,\)"),
        (
            IMAGE,
            [ConvolutionSpec("c", ONES, [np.inf])],
            "bias must hold finite numbers, got 1 of 1",
        ),
        (IMAGE, [ConvolutionSpec("c", ONES, channels=["a", "b"])], "one name per output, 1, got 2"),
        (
            IMAGE,
            [ConvolutionSpec("c", ONES, steps=[AffineSpec([1], [1, 2])])],
            "shift must have one",
        ),
        (IMAGE, [ConvolutionSpec("c", ONES, stride=0)], "layer 'c': stride must be at least 1"),
        (IMAGE, [ConvolutionSpec("c", ONES, dilation=3)], "layer 'c': the kernel is larger than"),
        (IMAGE, [ConvolutionSpec("c", ONES, padding=99)], "output must have at most 128 cells"),
        (IMAGE, [MaxPoolSpec("p", Windows(2, padding=2))], "every window of the pool a cell"),
        (
            IMAGE,
            [MaxPoolSpec("p", Windows(2, padding=((0, 0), (0, 2))))],
            "every window of the pool",
        ),
        (
            IMAGE,
            [DenseSpec("d", np.ones((1, 1, 4, 3)))],
            r"whose shape is \(1, 3, 4\), got the shape",
        ),
    ],
)
def test_page_data_rejects_values(image, layers, message):
    with pytest.raises(ValueError, match=message):
        page_data(image, layers)


def test_page_data_rejects_an_image_with_its_channels_last():
    message = (
        r"as the image, 3, got 1: its shape is \(1, 1, 2, 2\) \(O, I, height, width\), that of the "
        r"image \(3, 4, 1\) \(channels, height, width\)"
    )
    with pytest.raises(ValueError, match=message):
        page_data(IMAGE.transpose(1, 2, 0), [ConvolutionSpec("c", ONES)])
    with pytest.raises(ValueError, match=r"200×3 in the shape \(200, 200, 3\) \(channels, height"):
        page_data(np.ones((200, 200, 3)), [ConvolutionSpec("c", ONES)])


CONV = ConvolutionSpec("c", ONES)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [ReluSpec()],
            r"layers\[0\] must be ConvolutionSpec or MaxPoolSpec or DenseSpec, got ReluSpec: Relu",
        ),
        ([CONV, "relu"], r"layers\[1\] must be ConvolutionSpec or .*, got str: 'relu'"),
        (CONV, "layers must be a list of ConvolutionSpec or .*, got ConvolutionSpec"),
        (None, "layers must be a list of ConvolutionSpec or .*, got NoneType"),
        (
            nnx.eval_shape(lambda: broken_net(rngs=nnx.Rngs(0))),
            r"got ConvNet: .* convjax\.explorer\.layer_specs returns the layers of a network",
        ),
        ([ConvolutionSpec(ONES, ONES)], r"layers\[0\]\.name must be str, got ndarray"),
        ([CONV._replace(stride=1.5)], "layer 'c': stride must be an int"),
        (
            [CONV._replace(steps=["relu"])],
            r"layer 'c': steps\[0\] must be ReluSpec or AffineSpec, got str",
        ),
        ([CONV._replace(steps=[nnx.relu])], r"steps\[0\] must be ReluSpec or AffineSpec, got"),
        (
            [CONV._replace(steps=ReluSpec())],
            "steps must be a list of ReluSpec or AffineSpec, got ReluSpec",
        ),
        (
            [DenseSpec("d", np.ones((1, *IMAGE.shape)), steps=[ReluSpec])],
            r"layer 'd': steps\[0\] must be",
        ),
        ([CONV._replace(channels="a")], "layer 'c': channels must be a list of str, got str: 'a'"),
        ([CONV._replace(channels=[1])], r"layer 'c': channels\[0\] must be str, got int: 1"),
        ([MaxPoolSpec("p", 2)], "layer 'p': windows must be Windows, got int: 2"),
        (
            [CONV._replace(kernel="ones")],
            "layer 'c': kernel must be an array of numbers, got str: 'ones'",
        ),
    ],
)
def test_page_data_rejects_types(layers, message):
    with pytest.raises(TypeError, match=message):
        page_data(IMAGE, layers)
