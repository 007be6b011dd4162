"""The calls of Optax's optimisers during the trace of a training step.

Every loop calls `update` of an Optax transformation: `nnx.Optimizer` and Flax's `TrainState` do so
themselves, and other loops have the call in their step. While a step is traced, the attribute
`update` of Optax's transformations reports the gradients, the parameters and the updates. Nothing
is reported to other threads.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import optax


class OptimizerCall(NamedTuple):
    """One call of the outermost transformation.

    Attributes:
      grads: as given to the transformation.
      params: likewise; None if the caller leaves them out.
      updates: what the transformation returns, to be added to the parameters.
      state: of the transformation after the call.
    """

    grads: Any
    params: Any
    updates: Any
    state: Any


Report = Callable[[OptimizerCall], None]

_local = threading.local()
_lock = threading.Lock()
_users = 0
_own = {cls: vars(cls)["update"] for cls in (optax.GradientTransformation, optax.MultiSteps)}


@contextmanager
def optimizer_calls(report: Report) -> Iterator[None]:
    """Reports the calls of optimisers that this thread makes.

    A transformation inside another, as in `optax.MultiSteps`, is not reported.

    Args:
      report: called with each call after it was made.
    """
    global _users
    before = getattr(_local, "report", None)
    _local.report = report
    with _lock:
        _users += 1
        if _users == 1:
            optax.GradientTransformation.update = property(_update_of_transformation)
            optax.MultiSteps.update = wraps(_own[optax.MultiSteps])(_update_of_multi_steps)
    try:
        yield
    finally:
        _local.report = before
        with _lock:
            _users -= 1
            if not _users:
                for cls, own in _own.items():
                    cls.update = own


def _update_of_transformation(transformation: tuple[Any, ...]) -> Callable[..., Any]:
    own: Callable[..., Any] = transformation[1]
    return _reporting(own) if getattr(_local, "report", None) else own


def _update_of_multi_steps(steps: optax.MultiSteps, *args: Any, **kwargs: Any) -> Any:
    return _reporting(_own[optax.MultiSteps].__get__(steps))(*args, **kwargs)


def _reporting(own: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(own)
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        report, _local.report = getattr(_local, "report", None), None
        try:
            new, new_state = own(updates, state, params, **extra)
        finally:
            _local.report = report
        if report is not None:
            report(OptimizerCall(updates, params, new, new_state))
        return new, new_state

    return update
