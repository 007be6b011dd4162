import jax.numpy as jnp
import numpy as np
import pytest

from convjax._precision import at_least_float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_at_least_float32_widens_floats_and_keeps_their_values(dtype):
    x = jnp.asarray([0.1, -3.0, 300.0], dtype)
    wide = at_least_float32(x)
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide, np.asarray(x, np.float32))


def test_at_least_float32_keeps_float64_integers_and_structure(x64):
    tree = {"a": [jnp.ones(2, jnp.float64), None], "n": jnp.int32(3), "mask": jnp.array(True)}
    found = at_least_float32(tree)
    assert found["a"][0].dtype == jnp.float64
    assert found["a"][1] is None
    assert (found["n"].dtype, found["mask"].dtype) == (jnp.int32, jnp.bool_)
