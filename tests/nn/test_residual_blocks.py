"""Residual blocks against NumPy, their shortcuts and layouts."""

import jax
import numpy as np
import pytest
from flax import nnx

import convjax
from convjax.nn import BasicBlock, Bottleneck
from tests.helpers import KERNELS, reorder


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def convolved(x, kernel, stride, padding):
    """A convolution of images NHWC by NumPy alone, one kernel pixel after the other."""
    kernel = np.asarray(kernel, np.float64)
    x = np.pad(np.asarray(x, np.float64), [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)])
    rows = (x.shape[1] - kernel.shape[0]) // stride + 1
    columns = (x.shape[2] - kernel.shape[1]) // stride + 1
    y = 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            part = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            y = y + part[:, :rows, :columns] @ kernel[i, j]
    return y


def normalised(x, norm):
    axes = (0, 1, 2)
    y = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
    return y * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def with_random_norms(model):
    """Gives every norm another scale and bias, so that a wrong one is seen."""
    for seed, (_, module) in enumerate(nnx.iter_modules(model)):
        if isinstance(module, convjax.nn.BatchNorm):
            size = module.scale.shape[0]
            module.scale[...] = 1 + 0.3 * draw(size, seed=seed)
            module.bias[...] = 0.3 * draw(size, seed=100 + seed)
    return model


@pytest.mark.parametrize("shortcut", ["projection", "padding", None])
@pytest.mark.parametrize(("make", "stride"), [(BasicBlock, 2), (Bottleneck, 2), (BasicBlock, 1)])
def test_block_against_numpy(make, stride, shortcut):
    block = make(3, 5, stride=stride, shortcut=shortcut, zero_init=False, rngs=nnx.Rngs(0))
    with_random_norms(block)
    x = draw(4, 6, 5, 3)
    y = x
    strides = (stride, 1) if make is BasicBlock else (1, stride, 1)
    for i, (layer, step) in enumerate(zip(block.layers, strides, strict=True)):
        kernel = layer.conv.kernel[...]
        y = normalised(convolved(y, kernel, step, kernel.shape[0] // 2), layer.norm)
        y = y if i == len(strides) - 1 else np.maximum(y, 0)
    if shortcut == "projection":
        projection = block.projection
        y = y + normalised(convolved(x, projection.conv.kernel[...], stride, 0), projection.norm)
    elif shortcut == "padding":
        y[..., :3] += x[:, ::stride, ::stride]
    # Sums of 45 products and moments of 36 values of order 1 in float32, three times.
    np.testing.assert_allclose(block(x), np.maximum(y, 0), atol=2e-5)


@pytest.mark.parametrize("shortcut", ["projection", "padding"])
def test_block_of_one_shape_adds_its_input(shortcut):
    block = BasicBlock(4, 4, shortcut=shortcut, rngs=nnx.Rngs(0))
    x = draw(3, 5, 5, 4)
    assert block.projection is None
    # The last scale is 0: the block begins as ReLU of its input.
    np.testing.assert_array_equal(block(x), np.maximum(x, 0))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shortcut", ["projection", "padding", None])
def test_plain_and_padded_blocks_have_no_parameters_of_shortcuts(stride, shortcut):
    block = BasicBlock(4, 8, stride=stride, shortcut=shortcut, rngs=nnx.Rngs(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(block, nnx.Param)))
    convolutions = 9 * 4 * 8 + 9 * 8 * 8 + 4 * 8
    assert count == convolutions + (4 * 8 + 2 * 8 if shortcut == "projection" else 0)


def test_blocks_take_maps_of_their_layout():
    x = draw(3, 6, 4, 5)
    expected = None
    for layout in KERNELS:
        block = Bottleneck(5, 2, stride=2, layout=layout, zero_init=False, rngs=nnx.Rngs(0))
        found = reorder(block(reorder(x, "NHWC", layout)), layout, "NHWC")
        expected = found if expected is None else expected
        # Three layers of sums of at most 18 products in float32, in another order.
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blocks_reject_invalid_settings():
    with pytest.raises(ValueError, match="shortcut must be 'projection' for a block with fewer"):
        BasicBlock(8, 4, shortcut="padding", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        BasicBlock(8, 4, stride=0, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="rngs must be Rngs, got int: 0"):
        Bottleneck(8, 4, rngs=0)
