"""Checks of arguments before any work. Each message says what to pass instead."""

import difflib
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

# JAX is imported only in the checks that need it, so that `convjax.data` loads without it.


def check_type(name: str, value: Any, kind: type, fix: str) -> None:
    """Raises TypeError if an argument is of another type; `fix` ends the message."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, got {describe_value(value)}. {fix}")


def describe_value(value: Any) -> str:
    """Returns the type of a value and, in 80 characters of one line at most, the value."""
    text = " ".join(repr(value).split())
    return f"{type(value).__name__}: {text if len(text) <= 80 else text[:79] + '…'}"


def check_whole(name: str, value: Any, minimum: int) -> int:
    """Returns a whole number that is at least `minimum`.

    Raises:
      TypeError: if the value is not a whole number; 2.0 is rejected, too.
      ValueError: if the number is below `minimum`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {describe_value(value)}.") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}.")
    return number


def near_match(word: str, choices: Iterable[str]) -> str:
    """Returns the end of a message that suggests the choice closest to a word.

    Returns:
      `"; did you mean 'mnist'?"`, or an empty string if nothing is close.
    """
    # Case is the most frequent slip, and difflib counts every letter of "MNIST" as different.
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def check_number(name: str, value: Any) -> float:
    """Returns a real number, which may be of NumPy or JAX.

    Raises:
      TypeError: if the value is not a number; text such as "0.1" is rejected, too.
    """
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {describe_value(value)}.") from None


def check_not_negative(name: str, value: Any) -> None:
    """Raises as `check_number`, and ValueError if the number is negative or not finite."""
    if not 0 <= check_number(name, value) < float("inf"):
        raise ValueError(f"{name} must be 0 or above and finite, got {value}.")


def check_flags(fix: str = "", /, **flags: Any) -> None:
    """Raises TypeError for an argument that is neither True nor False, as text would be True.

    `fix` ends the message.
    """
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {describe_value(value)}.{fix}")


def check_function(name: str, value: Any, what: str) -> None:
    """Raises TypeError if an argument cannot be called; `what` says what it maps to what."""
    if not callable(value):
        raise TypeError(f"{name} must be a function {what}, got {describe_value(value)}.")


def check_array(name: str, value: Any) -> None:
    """Raises TypeError if an argument is not an array of JAX or NumPy, or a tracer of one."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise TypeError(
            f"{name} must be an array, got {describe_value(value)}. jnp.asarray converts it."
        )


def check_real(name: str, value: Any) -> None:
    """Checks that a value is a number or numbers, without waiting for the device with them.

    Raises:
      TypeError: if the value is not a real number or an array of them, or is a tracer.
    """
    import jax
    import jax.numpy as jnp

    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} must be a value, got a tracer: return the loss and the statistics from the "
            "jitted step, and add them outside."
        )
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.number) or jnp.iscomplexobj(array):
        raise TypeError(f"{name} must be a number, got {describe_value(value)}.")
