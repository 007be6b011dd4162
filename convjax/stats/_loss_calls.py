"""The calls of Optax's losses during the trace of a training step.

Their arguments are the outputs and labels as the loss gets them, whatever the step did to them
before. Nothing is reported to other threads.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import optax

LossReport = Callable[[Any, Any], tuple[Any, Any]]

_NAMES = (
    "softmax_cross_entropy_with_integer_labels",
    "softmax_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "squared_error",
    "l2_loss",
    "huber_loss",
    "log_cosh",
    "hinge_loss",
)

_local = threading.local()
_lock = threading.Lock()
_users = 0
_MODULES = (optax, optax.losses)
_own = {name: getattr(optax, name) for name in _NAMES if hasattr(optax, name)}


@contextmanager
def loss_calls(report: LossReport) -> Iterator[None]:
    """Reports the outputs and labels that this thread gives to losses of Optax.

    Args:
      report: called with outputs and labels; returns them, tagged.
    """
    global _users
    before = getattr(_local, "report", None)
    _local.report = report
    with _lock:
        _users += 1
        if _users == 1:
            for name, own in _own.items():
                _set(name, _reporting(own))
    try:
        yield
    finally:
        _local.report = before
        with _lock:
            _users -= 1
            if not _users:
                for name, own in _own.items():
                    _set(name, own)


def _set(name: str, function: Callable[..., Any]) -> None:
    for module in _MODULES:
        if hasattr(module, name):
            setattr(module, name, function)


def _reporting(own: Callable[..., Any]) -> Callable[..., Any]:
    parameters = inspect.signature(own)

    @wraps(own)
    def loss(*args: Any, **kwargs: Any) -> Any:
        # A loss may call another, which gets what this one has made of the labels.
        report, _local.report = getattr(_local, "report", None), None
        try:
            if report is None:
                return own(*args, **kwargs)
            bound = parameters.bind(*args, **kwargs)
            names = list(bound.arguments)[:2]
            if len(names) == 2:
                found = report(*(bound.arguments[name] for name in names))
                bound.arguments.update(zip(names, found, strict=True))
            return own(*bound.args, **bound.kwargs)
        finally:
            _local.report = report

    return loss
