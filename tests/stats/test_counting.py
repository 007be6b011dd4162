"""Counts by rows, against NumPy, in each form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from convjax.stats import counting
from convjax.stats.counting import count_rows, explicitly_sharded, replicated


def expected(index, bins):
    return [np.bincount(row.reshape(-1), minlength=bins + 1)[:bins].tolist() for row in index]


def test_count_rows_by_hand():
    index = jnp.array([[0, 2, 2, 3], [1, 1, 1, 3]])
    assert count_rows(index, 3).tolist() == [[1, 0, 2], [0, 3, 0]]


@pytest.mark.parametrize("paired_size", [1, 10**9])
@settings(max_examples=10, deadline=None)  # each of them compiles
@given(rows=st.integers(1, 3), size=st.integers(1, 9), bins=st.integers(1, 5), seed=st.integers(0))
def test_count_rows_equals_numpy(paired_size, rows, size, bins, seed):
    index = np.random.default_rng(seed).integers(0, bins + 1, (rows, size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "PAIRED_SIZE", paired_size)
        found = count_rows(jnp.asarray(index), bins)
    assert found.tolist() == expected(index, bins)
    assert found.dtype == np.int32


@pytest.mark.parametrize("paired_size", [1, 10**9])
def test_count_rows_of_entries_that_share_rows(paired_size, monkeypatch):
    monkeypatch.setattr(counting, "PAIRED_SIZE", paired_size)
    index = np.random.default_rng(0).integers(0, 5, (6, 4))
    found = count_rows(jnp.asarray(index), 4, np.array([0, 1, 1, 1, 2, 2]))
    assert found.tolist() == expected([index[:1], index[1:4], index[4:]], 4)


@pytest.mark.parametrize("bins", [counting.PAIRED_CODES - 1, counting.PAIRED_CODES])
def test_count_rows_of_long_rows(bins):
    index = np.random.default_rng(0).integers(0, bins + 1, (2, 3, counting.PAIRED_SIZE // 3 + 3))
    assert index[0].size % 2  # one number has no neighbour
    assert jax.jit(count_rows, static_argnums=1)(index, bins).tolist() == expected(index, bins)


@pytest.mark.parametrize("count", [counting.count_by_adding, counting.count_by_comparing])
def test_forms_of_count_rows_count_alike(count):
    index = np.random.default_rng(0).integers(0, 4, (5, 6))
    rows = np.array([0, 0, 1, 2, 2])
    assert count(jnp.asarray(index), 3, None).tolist() == expected(index, 3)
    together = expected([index[:2], index[2:3], index[3:]], 3)
    assert count(jnp.asarray(index), 3, rows).tolist() == together


def test_count_rows_of_explicit_sharding():
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    index = np.random.default_rng(0).integers(0, 4, (3, 4, 6), np.int32)
    with jax.set_mesh(mesh):
        split = jax.device_put(index, NamedSharding(mesh, PartitionSpec(None, "x", "y")))
        assert explicitly_sharded(split)
        assert not explicitly_sharded(replicated(split))
        assert not explicitly_sharded(jnp.asarray(index))
        found = jax.jit(count_rows, static_argnums=1)(split, 3)
    assert found.tolist() == expected(index, 3)
