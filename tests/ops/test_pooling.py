"""Pooling, by hand, against NumPy's windows and PyTorch's rules, in every layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.nn import GlobalAvgPool
from convjax.ops import avg_pool, images_to, max_pool
from convjax.ops.layout import KERNEL_AXES

X = jnp.arange(16.0).reshape(1, 4, 4, 1)


def expected(x, size, stride, padding, reduce, fill):
    """The windows of images NHWC, one after the other."""
    sides = [(0, 0), *((p, p) for p in padding), (0, 0)]
    x = np.pad(x, sides, constant_values=fill)
    rows = (x.shape[1] - size[0]) // stride[0] + 1
    columns = (x.shape[2] - size[1]) // stride[1] + 1
    found = np.empty((len(x), rows, columns, x.shape[3]))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride[0], j * stride[1]
            found[:, i, j] = reduce(x[:, top : top + size[0], left : left + size[1]], axis=(1, 2))
    return found


def test_pooling_by_hand():
    assert max_pool(X, 2)[0, :, :, 0].tolist() == [[5, 7], [13, 15]]
    assert avg_pool(X, 2)[0, :, :, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    # A stride of one pixel; the padding counts as zeros, (0 + 0 + 0 + 0)/4 in the corner.
    assert avg_pool(X, 2, stride=1, padding=1).shape == (1, 5, 5, 1)
    assert avg_pool(X, 2, stride=1, padding=1)[0, 4, 4, 0] == 15 / 4
    # The padding of the maximum is below every value.
    largest = max_pool(-X - 1, 2, padding=1)[0, :, :, 0]
    assert largest.tolist() == [[-1, -2, -4], [-5, -6, -8], [-13, -14, -16]]


@pytest.mark.parametrize("layout", KERNEL_AXES)
@settings(deadline=None)  # each shape compiles
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    seed=st.integers(0, 99),
)
def test_pooling_equals_numpy_in_every_layout(layout, size, stride, padding, seed):
    padding = tuple(min(p, s - 1) for p, s in zip(padding, size, strict=True))
    x = np.random.default_rng(seed).standard_normal((2, 5, 4, 3)).astype(np.float32)
    given_x = images_to(jnp.asarray(x), layout)
    for pool, reduce, fill in ((max_pool, np.max, -np.inf), (avg_pool, np.mean, 0)):
        found = pool(given_x, size, stride=stride, padding=padding, layout=layout)
        back = images_to(found, "NHWC", source=layout)
        # Sums of at most nine numbers of order 1 in float32.
        np.testing.assert_allclose(
            back, expected(x, size, stride, padding, reduce, fill), atol=1e-6
        )


def test_gradients_within_jit():
    """Each window passes its gradient on: to its largest value, or to all of its values."""
    largest = jax.jit(jax.grad(lambda x: max_pool(x, 2).sum()))(X)
    assert largest[0, :, :, 0].tolist() == [[0] * 4, [0, 1, 0, 1], [0] * 4, [0, 1, 0, 1]]
    assert (jax.jit(jax.grad(lambda x: avg_pool(x, 2).sum()))(X) == 0.25).all()


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.bfloat16])
def test_max_pool_of_other_dtypes(dtype):
    x = jnp.asarray([[1, 2], [3, 4]], dtype).reshape(1, 2, 2, 1)
    found = max_pool(x, 2, padding=1)
    assert found.dtype == dtype
    assert found[0, :, :, 0].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("x", "window", "settings", "error", "text"),
    [
        ([[1.0]], 2, {}, TypeError, "x must be an array"),
        (jnp.ones((4, 4)), 2, {}, ValueError, "x must have the four axes NHWC"),
        (X, 0, {}, ValueError, "window must be at least 1"),
        (X, 2.0, {}, TypeError, "window must be an int or a pair"),
        (X, 2, {"stride": 0}, ValueError, "stride must be at least 1"),
        (X, 5, {}, ValueError, "larger than the padded input"),
        (
            X,
            2,
            {"padding": 2},
            ValueError,
            "padding must be below the window, got 2 of a",
        ),
        (X > 0, 2, {}, TypeError, r"x must be of .*, got bool"),
        (X, 2, {"padding": "full"}, ValueError, 'padding must be "same"'),
        (X, 2, {"layout": "HWCN"}, ValueError, "layout must be one of"),
    ],
)
@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_errors(pool, x, window, settings, error, text):
    with pytest.raises(error, match=text):
        pool(x, window, **settings)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_means_of_half_precision_are_summed_in_float32(dtype):
    """In bfloat16 a sum of ones ends at 256, in float16 one of 3,000 at infinity."""
    assert avg_pool(jnp.ones((1, 64, 64, 1), dtype), 64) == 1
    assert avg_pool(jnp.full((1, 14, 14, 1), 3000, dtype), 14) == jnp.asarray(3000, dtype)
    x = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), dtype)
    found = avg_pool(x, 32)[:, 0, 0]
    assert found.dtype == dtype
    assert (found == GlobalAvgPool()(x)).all()


def test_whole_numbers_have_no_means():
    with pytest.raises(TypeError, match="x must be of floating point to have means, got uint8"):
        avg_pool(jnp.ones((1, 4, 4, 1), jnp.uint8), 2)
