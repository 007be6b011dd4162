"""Checks of the arguments of a training: images, labels, batches, rates and states."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32, Num

from convjax._checks import check_array, check_type, describe_value


def check_split(split: Any) -> None:
    """Raises TypeError if an argument has no images and labels, such as a whole data set."""
    if not (hasattr(split, "images") and hasattr(split, "labels")):
        raise TypeError(
            f"split must have images and labels, got {describe_value(split)}. Pass dataset.train "
            "or dataset.test; Split(images, labels) makes one of arrays."
        )


def check_images(images: Any, labels: Any, name: str = "data") -> None:
    """Checks a split on the device: what `convjax.Images` says.

    Args:
      images, labels: the arrays of the split.
      name: of the argument, for messages.

    Raises:
      TypeError: if they are not arrays, or the images are whole numbers other than uint8.
      ValueError: if uint8 images do not have the axes (N, H, W, C), others have no axis beside that
        of the examples, or the labels are more or fewer.
    """
    check_array(f"{name}.labels", labels)
    check_inputs(images, f"{name}.images")
    if not labels.ndim or len(labels) != len(images):
        raise ValueError(
            f"{name} must hold as many labels as images, got the shapes {labels.shape} and "
            f"{images.shape}."
        )


def check_inputs(images: Any, name: str = "images") -> None:
    """Checks images as `convjax.Images` holds them; raises as `check_images`."""
    check_array(name, images)
    if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be uint8 from 0 to 255 or of floating point, got {images.dtype}. "
            "Pixels of uint8 are divided by 255 in the step, others are taken as they are: convert "
            "them with images.astype(np.float32) / 65535, say."
        )
    if images.dtype == np.uint8 and images.ndim != 4:
        raise ValueError(
            f"{name} of uint8 must have the axes (N, H, W, C), got the shape "
            f"{images.shape}. Give grey images one channel: images[..., None]."
        )
    if images.ndim < 2:
        raise ValueError(
            f"{name} must have an axis beside that of the examples, got the shape "
            f"{images.shape}. Add one: images[:, None]."
        )


def check_alive(state: Any) -> None:
    """Checks that a training can continue from a state.

    Raises:
      TypeError: if it is not the state of a training.
      ValueError: if its buffers were donated to an earlier run.
    """
    if not hasattr(state, "opt_state"):
        raise TypeError(
            f"state must be what Trainer.start(model) or Trainer.run returns, got "
            f"{describe_value(state)}."
        )
    arrays = (leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array))
    if any(array.is_deleted() for array in arrays):
        raise ValueError(
            "state must not have been passed to an earlier run, which reuses its memory. Continue "
            "from the state that the run returned, or call start(model) again."
        )


def checked_batches(order: Any) -> Int[np.ndarray, "T B"]:
    """Returns the indices of the examples of each batch as an array.

    Raises:
      TypeError: if they are not whole numbers.
      ValueError: if they have other axes, or there are none.
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


def checked_order(order: Any, examples: int, parts: int) -> Int32[np.ndarray, "T B"]:
    """Returns the indices of the examples of each batch as int32.

    Args:
      order: indices (T, B).
      examples: number of examples in the split.
      parts: number of equal parts that each batch is split into.

    Raises:
      TypeError: if they are not whole numbers.
      ValueError: if they are empty, out of range or cannot be split.
    """
    order = checked_batches(order)
    size = order.shape[1]
    if size % parts:
        near = [n for n in (size // parts * parts, -(-size // parts) * parts) if n]
        raise ValueError(
            f"order must have a batch size that is a multiple of the {parts} devices, got {size} "
            f"in the shape {order.shape}. Use {' or '.join(map(str, near))}."
        )
    if order.min() < 0 or order.max() >= examples:
        raise ValueError(
            f"order must hold indices from 0 to {examples - 1}, got {order.min()} to {order.max()}."
        )
    return order.astype(np.int32)


def checked_table(table: Any, steps: int) -> dict[str, Num[np.ndarray, " T"]]:
    """Returns the columns learning_rate and momentum, each of shape (steps,).

    Raises:
      TypeError: if the table is not a mapping, or a column is not of numbers.
      ValueError: if a column is missing, has another name or another length, or a number is
        negative, not finite, or a momentum of 1 or more.
    """
    check_type(
        "table", table, Mapping, "A schedule makes one: one_cycle(steps, rate).table(steps)."
    )
    columns = {name: np.asarray(column) for name, column in table.items()}
    if set(columns) != {"learning_rate", "momentum"}:
        raise ValueError(
            f"table must hold learning_rate and momentum, got "
            f"{', '.join(sorted(columns)) or 'none'}."
        )
    for name, column in columns.items():
        if column.dtype.kind not in "fiu":
            raise TypeError(f"table[{name!r}] must hold numbers, got {column.dtype}.")
        if column.shape != (steps,):
            raise ValueError(
                f"table[{name!r}] must have one number per step ({steps}), "
                f"got the shape {column.shape}."
            )
        # A rate of zero leaves the parameters as they are; a momentum of 1 never forgets.
        limit = np.inf if name == "learning_rate" else 1
        with np.errstate(over="ignore"):
            taken = column.astype(np.float32)  # 1e300 is infinite
        wrong = ~((taken >= 0) & (taken < limit))
        if wrong.any():
            rule = "finite" if limit == np.inf else "below 1"
            step = int(wrong.argmax())
            raise ValueError(
                f"table[{name!r}] must be at least 0 and {rule}, got {column[step]} at step {step}."
            )
    return columns
