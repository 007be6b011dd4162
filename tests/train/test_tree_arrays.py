import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.train.tree_arrays import CheckpointError, arrays_by_path, checksums, tree_from_arrays

TREE = {"a": [jnp.arange(2.0), jnp.ones((), jnp.bfloat16)], "key": jax.random.key(1)}


def test_arrays_by_path_has_readable_names():
    arrays = arrays_by_path(TREE)
    assert set(arrays) == {"['a'][0]", "['a'][1]", "['key']"}
    np.testing.assert_array_equal(arrays["['a'][0]"], [0, 1])
    np.testing.assert_array_equal(arrays["['key']"], jax.random.key_data(TREE["key"]))


def test_tree_from_arrays_restores_the_tree():
    back = tree_from_arrays(jax.tree.map(jnp.zeros_like, TREE), arrays_by_path(TREE), "somewhere")
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    assert checksums(arrays_by_path(back)) == checksums(arrays_by_path(TREE))
    assert jax.random.bits(back["key"]) == jax.random.bits(TREE["key"])


def test_checksums_change_with_one_bit():
    arrays = arrays_by_path(TREE)
    before = checksums(arrays)
    arrays["['a'][0]"] = np.array([0.0, 1.0 + 2**-23], np.float32)
    changed = {name for name, value in checksums(arrays).items() if value != before[name]}
    assert changed == {"['a'][0]"}


def test_tree_from_arrays_rejects_arrays_of_another_tree():
    arrays = arrays_by_path(TREE)
    arrays["more"] = arrays.pop("['a'][1]")
    with pytest.raises(
        CheckpointError,
        match=r"checkpoint somewhere is of another training: \['a'\]\[1\] missing, not bfloat16 "
        r"\(\), more bfloat16 \(\), not missing\. Remove it",
    ):
        tree_from_arrays(TREE, arrays, "somewhere")
