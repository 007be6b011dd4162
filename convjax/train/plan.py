"""The plan of a training: the batch and the rates of each step, and its pieces."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int, Num

from convjax._checks import check_function, check_whole
from convjax._names import PIECE
from convjax.train._arguments import checked_batches, checked_table
from convjax.train.augmentation import step_columns

Order = Int[Array | np.ndarray, "T B"]


class Piece(NamedTuple):
    """Successive steps of an epoch.

    Attributes:
      epoch: number of the epoch, from 0.
      first: number of the first step, from 0.
      order: the indices of the examples of each batch.
      evaluated: whether an evaluation follows.
    """

    epoch: int
    first: int
    order: Order
    evaluated: bool

    def __repr__(self) -> str:
        last = self.first + len(self.order) - 1
        evaluated = ", then an evaluation" if self.evaluated else ""
        return f"Piece(epoch {self.epoch}, steps {self.first:,} to {last:,}{evaluated})"

    @property
    def steps(self) -> slice:
        """The numbers of its steps."""
        return slice(self.first, self.first + len(self.order))


@dataclass(frozen=True, repr=False)
class Plan:
    """The batch and the rates of each step of a training, and its evaluations.

    Attributes:
      epochs: number of epochs, each of equally many steps.
      order: maps the number of an epoch, from 0, to the indices of the examples of each of its
        batches. It must return the same at each call.
      table: "learning_rate" and "momentum" of each step, T numbers each.
      evaluations: number of evaluations per epoch. They divide the epoch into parts of nearly the
        same length; there is at most one for each step.
      piece: the most steps after which a training can be stopped and saved. It decides in which
        pieces the steps are taken, and is therefore part of the plan: with another number the
        training is the same only up to rounding.
      seed: of the trainer's augmentations, below 2^32. (The batches are those of `order`.)

    Raises:
      ValueError: if there is no epoch, evaluation or step, the table lacks a column, or its steps
        are not a multiple of the epochs.
      TypeError: for values of another type.

    Examples:
      Two epochs of four batches, scored twice per epoch:

      >>> import convjax
      >>> def order(epoch):
      ...     return convjax.data.epoch_order(20, 5, seed=0, epoch=epoch)
      >>> plan = convjax.Plan(2, order, convjax.one_cycle(8, 0.01).table(8), evaluations=2)
      >>> plan.steps
      8
      >>> [(piece.epoch, piece.first, piece.order.shape) for piece in plan.pieces(0)]
      [(0, 0, (2, 5)), (0, 2, (2, 5)), (1, 4, (2, 5)), (1, 6, (2, 5))]
    """

    epochs: int
    order: Callable[[int], Order]
    table: Mapping[str, Num[Array | np.ndarray, " T"]]
    evaluations: int = 1
    piece: int = PIECE
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "evaluations", "piece"):
            check_whole(name, getattr(self, name), 1)
        step_columns(self.seed, 0, 0)  # checks it
        check_function("order", self.order, "from an epoch to the indices of its batches")
        rates = self.table.get("learning_rate", ()) if isinstance(self.table, Mapping) else ()
        checked_table(self.table, len(np.atleast_1d(np.asarray(rates))))
        if not self.steps:
            raise ValueError("table must have at least one step, got none.")
        if self.steps % self.epochs:
            raise ValueError(
                f"table must have equally many steps for each of {self.epochs} epochs, got "
                f"{self.steps}."
            )

    def __repr__(self) -> str:
        epochs = f"{self.epochs:,} epoch{'s' * (self.epochs != 1)}"
        each = f"{self.evaluations:,} evaluation{'s' * (self.evaluations != 1)} in each"
        return f"Plan({epochs}, {self.steps:,} steps, {each})"

    @property
    def steps(self) -> int:
        """Steps of the whole training, T."""
        return len(np.asarray(self.table["learning_rate"]))

    @property
    def config(self) -> dict[str, Any]:
        """What identifies the plan, as plain data: its numbers, and checksums of the rates and of
        the batches of the first epoch.

        Raises:
          TypeError, ValueError: as `pieces`.
        """
        rates = [np.asarray(self.table[name]).tobytes() for name in sorted(self.table)]
        first = np.ascontiguousarray(self._batches(0))
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "evaluations": self.evaluations,
            "piece": self.piece,
            "batch_size": first.shape[1],
            "rates": zlib.crc32(b"".join(rates)),
            "batches": zlib.crc32(first.astype(np.int64).tobytes()),
            # Checkpoints of earlier versions have none.
            **({"seed": self.seed} if self.seed else {}),
        }

    def _batches(self, epoch: int) -> Int[np.ndarray, "T B"]:
        order, steps = checked_batches(self.order(epoch)), self.steps // self.epochs
        if len(order) != steps:
            raise ValueError(
                f"order must have {steps} batches for each epoch, as the table has, got "
                f"{len(order)} for epoch {epoch}."
            )
        return order

    def rates(self, piece: Piece) -> dict[str, Num[np.ndarray, " T"]]:
        """Returns the part of the table for a piece."""
        return {name: np.asarray(column)[piece.steps] for name, column in self.table.items()}

    def pieces(self, taken: int, every: int = 1) -> Iterator[Piece]:
        """Yields the pieces that remain after `taken` steps.

        Args:
          taken: number of steps already taken; they must end with a piece.
          every: the distance of watched steps. The length of a piece is a multiple of it, except
            for the last before an evaluation.

        Raises:
          TypeError: if the batches of an epoch are not whole numbers.
          ValueError: if they are not of the shape (steps, B), with as many steps as the table has
            for the epoch, or `taken` does not end with a piece.
        """
        per_epoch = self.steps // self.epochs
        length = -(-self.piece // every) * every
        for epoch in range(taken // per_epoch, self.epochs):
            order = self._batches(epoch)
            first = epoch * per_epoch
            for part in np.array_split(order, min(self.evaluations, per_epoch)):
                for start in range(0, len(part), length):
                    piece = part[start : start + length]
                    if first >= taken:
                        yield Piece(epoch, first, piece, start + length >= len(part))
                    elif first + len(piece) > taken:
                        raise ValueError(
                            f"taken must end with a piece of the plan, got {taken} steps."
                        )
                    first += len(piece)
