"""What a trainer is given, checked before any work: each message names the way out."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt


def check_type(name: str, value: Any, kind: type, way_out: str) -> None:
    """Raises TypeError if an argument is of another kind."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be {kind.__name__}, got {type(value).__name__}: {value!r:.80}. {way_out}"
        )


def check_alive(state: Any) -> None:
    """Raises ValueError if the buffers of a state were given up to an earlier run."""
    arrays = (leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array))
    if any(array.is_deleted() for array in arrays):
        raise ValueError(
            "state was given to an earlier run, which reuses its memory. Go on from the state that "
            "the run returned, or begin with start(model) again."
        )


def checked_order(order: Any, examples: int, parts: int) -> npt.NDArray[np.int32]:
    """Returns the order of the examples as int32 (T, B).

    Args:
      examples: how many there are.
      parts: into which each batch is split.

    Raises:
      ValueError: if it is empty, points outside the examples or cannot be split.
    """
    order = np.asarray(order, np.int32)
    if order.ndim != 2 or not order.size:
        raise ValueError(f"order must have the shape (steps, batch), got {order.shape}.")
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
    return order


def checked_table(table: Any, steps: int) -> dict[str, npt.NDArray[Any]]:
    """Returns the columns learning_rate and momentum, each of shape (steps,).

    Raises:
      TypeError: if it is no mapping.
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
        if column.shape != (steps,):
            raise ValueError(
                f"table[{name!r}] must have one number per step ({steps}), "
                f"got the shape {column.shape}."
            )
    return columns


def check_labels(labels: jax.Array, classes: int) -> None:
    """Raises ValueError for a label without a logit.

    Its cross entropy would be NaN, without a word.
    """
    if int(labels.max()) >= classes:
        raise ValueError(
            f"labels must be below the model's {classes} logits, got {int(labels.max())}."
        )
