"""A jitted function that tells how long it was compiled, apart from how long it runs."""

import time
from collections.abc import Callable
from typing import Any

import jax


class TimedJit:
    """A function compiled once per kind of argument, as by `jax.jit`, with a clock for that.

    Attributes:
      compile_seconds: time spent so far in tracing, lowering and compiling, or in fetching the
        result from JAX's persistent cache.

    Args:
      function: pure, of arrays and trees of arrays.
      **settings: of `jax.jit`, such as donate_argnums.
    """

    def __init__(self, function: Callable[..., Any], **settings: Any):
        self._jitted = jax.jit(function, **settings)
        self._compiled: dict[Any, Any] = {}
        self.compile_seconds = 0.0

    @property
    def programs(self) -> int:
        """How many kinds of arguments there were, each with a program of its own."""
        return len(self._compiled)

    def __call__(self, *args: Any) -> Any:
        """Calls the function, compiled before if arguments of this kind are new."""
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # to debug step by step
            return self._jitted(*args)
        leaves, structure = jax.tree.flatten(args)
        kinds = tuple((jax.typeof(x), getattr(x, "sharding", None)) for x in leaves)
        if (structure, kinds) not in self._compiled:
            began = time.perf_counter()
            self._compiled[structure, kinds] = self._jitted.lower(*args).compile()
            self.compile_seconds += time.perf_counter() - began
        return self._compiled[structure, kinds](*args)
