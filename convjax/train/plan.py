"""Which images each step of a training takes, and at which rate; cut into pieces."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convjax._checks import check_function, check_whole
from convjax.train._arguments import checked_batches, checked_table

Order = npt.NDArray[np.integer[Any]]

# Steps of a piece, at whose end a training can be stopped: long enough that asking costs nothing.
PIECE = 512


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

    @property
    def steps(self) -> slice:
        """The numbers of its steps."""
        return slice(self.first, self.first + len(self.order))


@dataclass(frozen=True)
class Plan:
    """Which images each step takes, and at which rate.

    Attributes:
      epochs: each of equally many steps.
      order: from the number of an epoch to its batches, (steps, B) indices; the same at each call.
      table: "learning_rate" and "momentum" of each step, (T,).
      evaluations: per epoch, which they cut into parts of nearly the same length; at most one for
        each step.
      piece: the most steps after which a training can be stopped and saved. Part of the plan,
        because it decides in which pieces the steps are taken: another number is another training,
        up to rounding.

    Raises:
      ValueError: if there is no epoch, evaluation or step, the table is none, or its steps are not
        a multiple of the epochs.
      TypeError: for values of another kind.
    """

    epochs: int
    order: Callable[[int], Order]
    table: Mapping[str, npt.ArrayLike]
    evaluations: int = 1
    piece: int = PIECE

    def __post_init__(self) -> None:
        for name in ("epochs", "evaluations", "piece"):
            check_whole(name, getattr(self, name), 1)
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

    @property
    def steps(self) -> int:
        """Steps of the whole training, T."""
        return len(np.asarray(self.table["learning_rate"]))

    @property
    def config(self) -> dict[str, Any]:
        """What another plan of the same training has in common with this one, as plain data: its
        numbers, and checksums of the rates and of the first epoch's batches.

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
        }

    def _batches(self, epoch: int) -> Order:
        order, steps = checked_batches(self.order(epoch)), self.steps // self.epochs
        if len(order) != steps:
            raise ValueError(
                f"order must have {steps} batches for each epoch, as the table has, got "
                f"{len(order)} for epoch {epoch}."
            )
        return order

    def rates(self, piece: Piece) -> dict[str, npt.NDArray[Any]]:
        """Returns the table of a piece's steps."""
        return {name: np.asarray(column)[piece.steps] for name, column in self.table.items()}

    def pieces(self, taken: int, every: int = 1) -> Iterator[Piece]:
        """Yields what is left after so many steps.

        Args:
          every: of `Watch`: pieces have a multiple of so many steps, but for the last before an
            evaluation.

        Raises:
          TypeError: if an epoch's batches are no whole numbers.
          ValueError: if they are not (steps, B), with as many steps as the table has for them, or
            the steps taken do not end with a piece.
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
                        raise ValueError(f"taken must end with a piece, got {taken} steps.")
                    first += len(piece)
