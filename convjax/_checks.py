"""What a function is given, checked before any work: each message names the way out."""

import difflib
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

# JAX is imported only in the checks that need it, so that `convjax.data` loads without it.


def check_type(name: str, value: Any, kind: type, way_out: str) -> None:
    """Raises TypeError if an argument is of another kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, got {describe_value(value)}. {way_out}")


def describe_value(value: Any) -> str:
    """Returns the type of a value and, in 80 characters of one line at most, the value."""
    text = " ".join(repr(value).split())
    return f"{type(value).__name__}: {text if len(text) <= 80 else text[:79] + '…'}"


def check_whole(name: str, value: Any, minimum: int) -> int:
    """Returns a whole number that is at least `minimum`.

    Raises:
      TypeError: if it is none; a real number such as 2.0 counts as a mistake.
      ValueError: if it is below.
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
      TypeError: if it is none; text that reads as a number counts as a mistake.
    """
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {describe_value(value)}.") from None


def check_function(name: str, value: Any, what: str) -> None:
    """Raises TypeError if an argument cannot be called; `what` says from what to what it maps."""
    if not callable(value):
        raise TypeError(f"{name} must be a function {what}, got {describe_value(value)}.")


def check_array(name: str, value: Any) -> None:
    """Raises TypeError if an argument is no array, of JAX or NumPy, and no tracer of one."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise TypeError(
            f"{name} must be an array, got {describe_value(value)}. jnp.asarray converts it."
        )


def check_scalar(name: str, value: Any) -> None:
    """Checks that a value is one number; it may lie on a device, for which this does not wait.

    Raises:
      TypeError: if it is no number, or a tracer.
      ValueError: if it is several.
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
    if np.shape(array) != ():
        raise ValueError(f"{name} must be a scalar, got the shape {np.shape(array)}.")


def check_split(split: Any) -> None:
    """Raises TypeError if an argument has no images and labels, such as a whole data set."""
    if not (hasattr(split, "images") and hasattr(split, "labels")):
        raise TypeError(
            f"split must have images and labels, got {describe_value(split)}. A data set has two: "
            "dataset.train and dataset.test; Split(images, labels) makes one of arrays."
        )


def check_images(images: Any, labels: Any, name: str = "data") -> None:
    """Checks a split on the device: images uint8 (N, H, W, C), as many labels.

    Raises:
      TypeError: for another type of numbers.
      ValueError: for another number of axes, or numbers that differ.
    """
    for field, array in (("images", images), ("labels", labels)):
        check_array(f"{name}.{field}", array)
    if images.dtype != np.uint8:
        raise TypeError(
            f"{name}.images must be uint8 from 0 to 255, got {images.dtype}. They are normalised "
            "in the step: give the trainer the mean and std of p/255."
        )
    if images.ndim != 4:
        raise ValueError(
            f"{name}.images must have the axes (N, H, W, C), got the shape {images.shape}. Grey "
            "images have one channel: images[..., None]."
        )
    if not labels.ndim or len(labels) != len(images):
        raise ValueError(
            f"{name} must hold as many labels as images, got the shapes {labels.shape} and "
            f"{images.shape}."
        )


def check_alive(state: Any) -> None:
    """Checks that a state may be gone on from.

    Raises:
      TypeError: if it is no state of a training.
      ValueError: if its buffers were given up to an earlier run.
    """
    import jax

    if not hasattr(state, "opt_state"):
        raise TypeError(
            f"state must be what Trainer.start(model) or Trainer.run returns, got "
            f"{describe_value(state)}."
        )
    arrays = (leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array))
    if any(array.is_deleted() for array in arrays):
        raise ValueError(
            "state was given to an earlier run, which reuses its memory. Go on from the state that "
            "the run returned, or begin with start(model) again."
        )


def checked_batches(order: Any) -> npt.NDArray[np.integer[Any]]:
    """Returns the indices of the examples of each batch as an array (T, B).

    Raises:
      TypeError: if they are anything but whole numbers.
      ValueError: if they have other axes, or there is none.
    """
    order = np.asarray(order)
    if order.ndim != 2 or not order.size:
        raise ValueError(
            f"order must have the shape (steps, batch), got {order.shape}. "
            "convjax.data.epoch_order makes one."
        )
    if order.dtype.kind not in "iu":
        raise TypeError(f"order must hold indices, whole numbers, got {order.dtype}.")
    return order


def checked_order(order: Any, examples: int, parts: int) -> npt.NDArray[np.int32]:
    """Returns the order of the examples as int32 (T, B).

    Args:
      examples: how many there are.
      parts: into which each batch is split.

    Raises:
      TypeError: if it holds anything but whole numbers.
      ValueError: if it is empty, points outside the examples or cannot be split.
    """
    order = checked_batches(order)
    size = order.shape[1]
    if size % parts:
        near = [n for n in (size // parts * parts, -(-size // parts) * parts) if n]
        raise ValueError(
            f"the batch size must be a multiple of the {parts} devices, got {size} in order, "
            f"{order.shape}: use {' or '.join(map(str, near))}."
        )
    if order.min() < 0 or order.max() >= examples:
        raise ValueError(
            f"order must hold indices from 0 to {examples - 1}, got {order.min()} to {order.max()}."
        )
    return order.astype(np.int32)


def checked_table(table: Any, steps: int) -> dict[str, npt.NDArray[Any]]:
    """Returns the columns learning_rate and momentum, each of shape (steps,).

    Raises:
      TypeError: if it is no mapping, or a column holds no numbers.
      ValueError: if a column is missing, of another name or of another length.
    """
    check_type(
        "table", table, Mapping, "A schedule makes one: one_cycle(steps, rate).table(steps)."
    )
    columns = {name: np.asarray(column) for name, column in table.items()}
    if set(columns) != {"learning_rate", "momentum"}:
        raise ValueError(
            f"table must hold learning_rate and momentum, got {', '.join(sorted(columns))}."
        )
    for name, column in columns.items():
        if column.dtype.kind not in "fiu":
            raise TypeError(f"table[{name!r}] must hold numbers, got {column.dtype}.")
        if column.shape != (steps,):
            raise ValueError(
                f"table[{name!r}] must have one number per step ({steps}), "
                f"got the shape {column.shape}."
            )
    return columns


def check_labels(labels: Any, classes: int) -> None:
    """Checks that every label has a logit, without which its cross entropy would be NaN.

    Raises:
      TypeError: if they are no whole numbers.
      ValueError: if they are not one per example, negative, or too large.
    """
    import jax.numpy as jnp

    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        error = TypeError if labels.ndim == 1 else ValueError
        raise error(
            f"labels must be one whole number per example, got {labels.dtype} of the shape "
            f"{labels.shape}. One-hot rows become such by labels.argmax(-1)."
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise ValueError(f"labels must be 0 or above, got {lowest}.")
    if highest >= classes:
        raise ValueError(f"labels must be below the model's {classes} logits, got {highest}.")
