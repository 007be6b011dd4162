"""A jitted function that measures its time of compilation."""

import time
from collections.abc import Callable
from typing import Any

import jax


class TimedJit:
    """A function compiled once per kind of arguments, as by `jax.jit`, with measured compilation.

    Args:
      function: a pure function of arrays and trees of arrays.
      **settings: arguments of `jax.jit`, such as donate_argnums.

    Attributes:
      compile_seconds: the time so far of tracing, lowering and compiling, or of fetching the result
        from JAX's persistent cache.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.parallel.timed_jit import TimedJit
      >>> double = TimedJit(lambda x: 2 * x)
      >>> int(double(jnp.int32(3))), double.programs, double.compile_seconds > 0
      (6, 1, True)
    """

    def __init__(self, function: Callable[..., Any], **settings: Any):
        self._jitted = jax.jit(function, **settings)
        self._compiled: dict[Any, Any] = {}
        self.compile_seconds = 0.0

    @property
    def programs(self) -> int:
        """The number of compiled programs, one for each kind of arguments."""
        return len(self._compiled)

    def __call__(self, *args: Any) -> Any:
        """Calls the function, and compiles it first for arguments of a new kind."""
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # to debug step by step
            return self._jitted(*args)
        leaves, structure = jax.tree.flatten(args)
        kinds = tuple((jax.typeof(x), getattr(x, "sharding", None)) for x in leaves)
        if (structure, kinds) not in self._compiled:
            began = time.perf_counter()
            self._compiled[structure, kinds] = self._jitted.lower(*args).compile()
            self.compile_seconds += time.perf_counter() - began
        return self._compiled[structure, kinds](*args)
