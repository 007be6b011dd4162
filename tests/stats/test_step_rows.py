"""Rows of one step, with members merged, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.stats.activations import ActivationStats
from convjax.stats.layers import LayerStats, layer_stats
from convjax.stats.parameters import Described, Norms, ParameterStats
from convjax.stats.step_rows import layer_row, mean_of_members, parameter_row


def test_layer_row_by_hand():
    # Two members of two values: 1, 3 and 5, 7.
    one = np.float32([[2], [6]])
    std = np.full((2, 1), 2**0.5, np.float32)
    share, hist = np.float32([[0], [0.5]]), np.int32([[[1, 1]], [[2, 0]]])
    stats = ActivationStats(one, std, share, share, hist, hist[..., 0], hist[..., 1])
    active = np.array([[True, False, False], [True, True, False]])
    row = layer_row(LayerStats(("a",), (2,), stats, active, (3,)))
    assert row.sizes.tolist() == [4]
    assert row.stats.mean.tolist() == [4]
    assert row.stats.std[0] == pytest.approx((20 / 3) ** 0.5, rel=1e-6)
    assert row.stats.near_zero.tolist() == [0.25]
    assert (row.stats.hist.tolist(), row.stats.under.tolist()) == ([[3, 1]], [3])
    assert (row.channels, row.units.tolist()) == ((3,), [True, True, False])


def test_layer_row_keeps_the_columns_asked_for():
    outputs = {"a": jnp.ones(2), "b": jnp.array([[-1.0, 2.0, 3.0]]), "c": jnp.ones(1)}
    stats = layer_stats(outputs, units=True)
    row = layer_row(stats, np.array([1, 0]), ())
    assert row.sizes.tolist() == [3, 2]
    np.testing.assert_allclose(row.stats.mean, [4 / 3, 1], rtol=1e-6)
    assert (row.stats.hist, row.channels, row.units) == (None, (), None)
    row = layer_row(stats, np.array([1, 0]))
    assert (row.channels, row.units.tolist()) == ((3, 1), [False, True, True, True])


def test_layer_row_counts_beyond_32_bits():
    size = 2**31 - 1
    count = np.full((3, 1), size, np.int32)
    column = np.ones((3, 1), np.float32)
    stats = ActivationStats(column, column, column, column, count[..., None], 0 * count, 0 * count)
    row = layer_row(LayerStats(("a",), (size,), stats))
    assert row.stats.hist.tolist() == [[3 * size]]
    assert row.sizes.tolist() == [3 * size]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6))
def test_parameter_row_is_the_root_mean_square(norms):
    column = np.float32(norms)[:, None]
    hist = np.arange(len(norms) * 42).reshape(-1, 1, 42).astype(np.int32)
    stats = Norms(column, None, column / 2, hist, None)
    row = parameter_row(ParameterStats(Described(("w",), (4,), (1,)), stats))
    assert row.members == len(norms)
    # The rounding of float32 of the result; a square below the smallest float32 is not lost.
    wanted = np.sqrt(np.mean(np.float64(column) ** 2))
    scale = 1 if len(norms) > 1 else np.sign(norms[0])
    np.testing.assert_allclose(row.stats.weight_norm, scale * wanted, rtol=1e-6)
    assert row.stats.grad_norm is row.stats.update_hist is None
    np.testing.assert_array_equal(row.stats.grad_hist, hist.sum(0))


def test_parameter_row_keeps_the_quantities_asked_for():
    column = np.ones((2, 3), np.float32)
    stats = Norms(column, column, column, None, None)
    found = ParameterStats(Described(("a", "b", "c"), (1, 2, 3), (1, 1, 1)), stats)
    row = parameter_row(found, np.array([2, 0]), ("weight_norm", "update_norm"))
    assert row.stats.weight_norm.tolist() == row.stats.update_norm.tolist() == [1, 1]
    assert row.stats.grad_norm is None


@pytest.mark.parametrize(
    ("number", "mean"),
    [(2, 2), (np.float32([1, 2]), 1.5), (np.ones((2, 3)), 1), ([1, np.inf], np.inf)],
)
def test_mean_of_members(number, mean):
    assert mean_of_members(number) == mean


def test_mean_of_no_member_is_nan():
    assert np.isnan(mean_of_members(np.zeros(0)))
    assert np.isnan(mean_of_members(np.array([1, np.nan])))


def test_rows_fetch_arrays_of_jax():
    stats = jax.vmap(lambda x: layer_stats({"x": x}))(jnp.arange(6.0).reshape(3, 2))
    assert layer_row(stats).stats.mean.tolist() == [2.5]
