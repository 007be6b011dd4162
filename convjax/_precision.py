"""The precision of sums, losses and statistics, whatever a model computes in."""

from typing import Any

import jax
import jax.numpy as jnp


def at_least_float32(tree: Any) -> Any:
    """Returns a tree of arrays in which those of half precision are float32.

    In bfloat16 a sum stops to grow at 256 times what is added.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax._precision import at_least_float32
      >>> wide = at_least_float32({"x": jnp.ones(2, jnp.bfloat16), "n": jnp.int32(3)})
      >>> str(wide["x"].dtype), str(wide["n"].dtype)
      ('float32', 'int32')
    """

    def wide(x: Any) -> Any:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    return jax.tree.map(wide, tree)
