"""A jitted function that measures its time of compilation."""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from convjax.parallel.agreement import agree
from convjax.parallel.exchange import announce, meet


class TimedJit:
    """A function compiled once per kind of arguments, as by `jax.jit`, with measured compilation.

    Args:
      function: a pure function of arrays and trees of arrays.
      processes: those whose devices run the program together; empty for one process. They compare
        their programs, and run them only after all have compiled: an operation among devices does
        not wait for long, and one that other processes do not start never ends.
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

    def __init__(
        self, function: Callable[..., Any], *, processes: Sequence[int] = (), **settings: Any
    ):
        self._processes = processes
        self._name = f"the program of {getattr(function, '__qualname__', repr(function))}"
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
            self._compiled[structure, kinds] = self._compile(self._jitted.lower(*args))
            self.compile_seconds += time.perf_counter() - began
        if self._processes:
            announce(self._name, self._processes)
        return self._compiled[structure, kinds](*args)

    def _compile(self, lowered: Any) -> Any:
        if not self._processes:
            return lowered.compile()
        program = hashlib.sha256(lowered.as_text().encode()).hexdigest()[:16]
        agree(
            {"program": program},
            call=f"compiling {self._name}",
            fix="Give every process the same model, optimizer, loss, metrics, watch, augmentations "
            "and batch size, and the same code.",
            processes=self._processes,
        )
        compiled = lowered.compile()
        # The wait is for the compilation of the others.
        meet(f"{self._name}, compiled", self._processes)
        return compiled
