import jax.numpy as jnp
import numpy as np

from convjax.stats import groups as library
from convjax.stats.groups import groups_of, in_order, joined, stacked

ARRAYS = [jnp.full(2, 1.0), jnp.full(3, 2.0), jnp.full(2, 3), jnp.full(2, 4.0), jnp.full(3, 5.0)]


def test_groups_of_separates_shapes_dtypes_and_keys():
    assert groups_of(ARRAYS) == [[0, 3], [1, 4], [2]]
    assert groups_of(ARRAYS, [0, 0, 0, 1, 0]) == [[0], [1, 4], [2], [3]]


def test_groups_of_leaves_large_arrays_alone(monkeypatch):
    monkeypatch.setattr(library, "STACKED_SIZE", 2)
    assert groups_of(ARRAYS) == [[0, 3], [1], [2], [4]]


def test_in_order_restores_the_order():
    groups = groups_of(ARRAYS)
    rows = [(stacked(ARRAYS, group)[:, 0].astype(jnp.float32), None) for group in groups]
    found, none = in_order(groups, rows)
    assert found.tolist() == [1, 2, 3, 4, 5]
    assert none is None


def test_joined_puts_rows_of_several_lengths_in_order():
    groups = groups_of(ARRAYS)
    rows = [stacked(ARRAYS, group).astype(jnp.float32) for group in groups]
    found = joined(groups, [len(x) for x in ARRAYS], rows)
    np.testing.assert_array_equal(found, np.concatenate(ARRAYS))
    assert joined([[0]], [0], [None]) is None
