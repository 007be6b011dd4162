"""The expected content of a page: all maps by NumPy, and the marks by `trace_precedents`."""

import numpy as np

from convjax.analysis._precedents import Windows, output_shape, precedents, trace_precedents
from convjax.explorer.layer_spec import (
    AffineSpec,
    ConvolutionSpec,
    DenseSpec,
    MaxPoolSpec,
    ReluSpec,
)
from convjax.ops.reference import conv2d_patches


def odd_layers():
    """Settings of which no two are alike, and every kind of layer and step."""
    rng = np.random.default_rng(0)
    affine = AffineSpec(rng.normal(size=3), rng.normal(size=3))
    return [
        ConvolutionSpec(
            "first",
            rng.normal(size=(3, 2, 3, 2)),
            rng.normal(size=3),
            stride=(1, 2),
            padding=((0, 2), (1, 3)),
            dilation=(2, 3),
            steps=[ReluSpec(), affine],
        ),
        MaxPoolSpec("pool", Windows((2, 3), stride=(2, 1), padding=(1, 0))),
        ConvolutionSpec(
            "second",
            rng.normal(size=(2, 3, 1, 2)),
            steps=[affine._replace(scale=[2, -1], shift=[0, 1]), ReluSpec()],
        ),
        DenseSpec("unit", rng.normal(size=(2, 2, 6, 5)), [1, 2]),
    ]


ODD_IMAGE = np.random.default_rng(1).normal(size=(2, 12, 14))


def windows_of(layers, size):
    found = []
    for layer in layers:
        if isinstance(layer, MaxPoolSpec):
            found.append(layer.windows)
        elif isinstance(layer, DenseSpec):
            found.append(Windows(size))
        else:
            kernel_size = np.shape(layer.kernel)[2:]
            found.append(Windows(kernel_size, layer.stride, layer.padding, layer.dilation))
        size = output_shape(size, found[-1])
    return found


def expected_maps(image, layers):
    """All maps in float64, by the sums of `reference` that `conv2d` is tested against."""
    maps = [np.asarray(image, np.float64)]
    for layer, windows in zip(layers, windows_of(layers, maps[0].shape[1:]), strict=True):
        if isinstance(layer, MaxPoolSpec):
            maps.append(pooled(maps[-1], windows))
            continue
        weights = layer.weights if isinstance(layer, DenseSpec) else layer.kernel
        bias = None if layer.bias is None else np.asarray(layer.bias, np.float64)
        settings = {"stride": windows.stride, "padding": windows.padding}
        after = conv2d_patches(
            maps[-1][None],
            np.asarray(weights, np.float64),
            bias,
            dilation=windows.dilation,
            layout="NCHW",
            **settings,
        )[0]
        for step in layer.steps:
            if isinstance(step, ReluSpec):
                after = np.maximum(after, 0)
            else:
                scale, shift = (np.reshape(v, (-1, 1, 1)) for v in (step.scale, step.shift))
                after = after * scale + shift
        maps.append(after)
    return maps


def pooled(before, windows):
    size = before.shape[1:]
    after = np.empty((len(before), *output_shape(size, windows)))
    for cell in np.ndindex(after.shape[1:]):
        rows, columns = zip(*(found.cell for found in precedents(cell, size, windows)), strict=True)
        after[:, *cell] = before[:, rows, columns].max(1)
    return after


def assert_maps(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert np.shape(mine) == theirs.shape
        # The same sums of float64 products in another order.
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12 * abs(theirs).max())


def assert_marks(state, image, layers, cell):
    """The marks are those of `trace_precedents`, in every map before the cell's."""
    index, row, column = cell
    assert [state["cell"][name] for name in ("map", "row", "column")] == list(cell)
    windows = windows_of(layers, np.shape(image)[1:])[:index]
    masks = trace_precedents((row, column), np.shape(image)[1:], windows)
    assert [sorted(map(tuple, marks)) for marks in state["marks"]] == [
        sorted(map(tuple, np.argwhere(mask).tolist())) for mask in masks
    ]


def change(layers, index, **settings):
    return [*layers[:index], layers[index]._replace(**settings), *layers[index + 1 :]]
