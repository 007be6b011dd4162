import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from convjax.parallel.mesh import AXIS, REPLICATED, SPLIT_FIRST
from convjax.parallel.placement import Placement

TWO = jax.devices()[1:3]


def over(tree):
    return [leaf.devices() for leaf in jax.tree.leaves(tree)]


def test_placement_without_devices():
    here = Placement(None)
    assert (here.mesh, here.parts, here.spans) == (None, 1, False)
    tree = {"a": jnp.arange(3), "b": np.arange(2)}
    assert here.put(tree) is tree


def test_placement_put_replicates():
    several = Placement(TWO)
    assert (several.parts, several.spans) == (2, False)
    given = {"a": jnp.arange(3), "b": np.arange(2)}
    placed = several.put(given)
    assert over(placed) == [set(TWO), set(TWO)]
    again = several.put(placed)
    assert again["a"] is placed["a"]
    assert again["b"] is placed["b"]
    np.testing.assert_array_equal(placed["a"], given["a"])
    # And back to the default device.
    assert over(Placement(None).put(placed)) == [{jax.devices()[0]}] * 2


@pytest.mark.parametrize("devices", [None, TWO])
def test_placement_put_order_leaves_host_arrays_to_jax(devices):
    order, table = np.arange(6).reshape(3, 2), {"x": np.arange(3)}
    found = Placement(devices).put_order(order, table)
    assert found[0] is order
    assert found[1] is table


@pytest.mark.parametrize(("devices", "sums"), [(None, [[6]]), (TWO, [[1], [5]])])
def test_placement_program_splits_arguments(devices, sums):
    """0 + 1 and 2 + 3 on two devices, 0 + 1 + 2 + 3 on one; their total is 6 either way."""
    placement = Placement(devices)

    def function(x):
        own = x.sum(keepdims=True)
        return own[None], own if placement.mesh is None else lax.psum(own, AXIS)

    program = placement.program(function, (SPLIT_FIRST,), (SPLIT_FIRST, REPLICATED))
    parts, total = program(np.arange(4))
    assert parts.tolist() == sums
    assert total.tolist() == [6]
    assert program.programs == 1


def test_placement_program_passes_settings_to_jit():
    given = jnp.arange(3)
    Placement(None).program(lambda x: x + 1, (REPLICATED,), donate_argnums=0)(given)
    assert given.is_deleted()


def test_placement_rejects_invalid_devices():
    with pytest.raises(ValueError, match="devices must be one device or more, each once, got"):
        Placement([])
    with pytest.raises(TypeError, match=r"devices must be a sequence of JAX devices"):
        Placement("cpu")
