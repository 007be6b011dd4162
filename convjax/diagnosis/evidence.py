"""The evidence of a diagnosis: quantities that several indicators derive from a record."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record
from convjax.stats.smoothing import smooth
from convjax.stats.watch import INPUT, LABELS

NONLINEARITIES = ("relu", "tanh", "sigmoid")

# A layer counts as a normalisation by its name, such as "blocks.0.norm", "BatchNorm_0" or "bn1".
_NORM = re.compile(r"norm|(^|[._])bn_?\d*$", re.IGNORECASE)


def network_columns(record: Record) -> tuple[int, ...]:
    """Returns the columns of the network's layers, without those of its input and labels."""
    return tuple(i for i, name in enumerate(record.layers) if name not in (INPUT, LABELS))


@dataclass(frozen=True)
class Evidence:
    """A record, the number of classes and the non-linearity of its network.

    Attributes:
      record: of the training so far.
      classes: of the task; 0 if it has none, or their number is not known.
      nonlinearity: that follows the hidden layers, one of `NONLINEARITIES`.
    """

    record: Record
    classes: int
    nonlinearity: str

    @property
    def guess(self) -> float:
        """Cross entropy of equal probabilities for all classes, in nats; 0 without classes."""
        return math.log(self.classes or 1)

    @cached_property
    def network(self) -> tuple[int, ...]:
        """Columns of the network's layers."""
        return network_columns(self.record)

    @cached_property
    def hidden(self) -> tuple[int, ...]:
        """Columns of the layers before a non-linearity.

        The last layer of the network, and layers that a normalisation follows, are left out.
        """
        last = self.network[-1:]
        if last and self._is_norm(last[0]):
            last = self.network[-2:]
        normed = {i for i, after in pairwise(self.network) if self._is_norm(after)}
        return tuple(i for i in self.network if i not in last and i not in normed)

    @property
    def has_norms(self) -> bool:
        """Whether one of the layers is a normalisation."""
        return any(map(self._is_norm, self.network))

    def _is_norm(self, column: int) -> bool:
        name = self.record.layers[column].split("#")[0]  # a "#" marks later calls of the layer
        return _NORM.search(name) is not None

    @property
    def parameters(self) -> ParameterRecord:
        """The record of the parameters, which exists for symptoms that need it."""
        assert self.record.parameters is not None
        return self.record.parameters

    @property
    def kernels(self) -> Bool[np.ndarray, " P"]:
        """Whether each parameter is a kernel."""
        return self.parameters.kernels

    @cached_property
    def kernel_names(self) -> tuple[str, ...]:
        """Names of the kernels."""
        pairs = zip(self.parameters.names, self.kernels, strict=True)
        return tuple(name for name, kernel in pairs if kernel)

    @cached_property
    def ratios(self) -> Float[np.ndarray, "S K"]:
        """Update-to-weight ratios of the kernels."""
        return self.parameters.update_ratio[:, self.kernels]

    @cached_property
    def gradient(self) -> Float[np.ndarray, " S"]:
        """Norm of the whole gradient."""
        with np.errstate(over="ignore"):
            squares = np.square(self.parameters.grad_norm, dtype=np.float64)
            return np.asarray(np.sqrt(squares.sum(axis=1)))

    @cached_property
    def rows(self) -> Int[np.ndarray, " S"]:
        """The rows of the record that contain the steps of the parameters' rows."""
        return self.row_of(self.parameters.watched)

    def row_of(self, watched: Int[np.ndarray, " S"]) -> Int[np.ndarray, " S"]:
        """Returns the rows of the record that contain the steps `watched`."""
        return np.asarray(np.searchsorted(self.record.first, watched, side="right") - 1)

    @property
    def every(self) -> int:
        """The median number of steps from one watched row to the next."""
        return int(np.median(np.diff(self.record.watched))) if len(self.record.watched) > 1 else 1

    @cached_property
    def loss(self) -> Float[np.ndarray, " R"]:
        """The loss, averaged over about the last ten rows."""
        return smooth(self.record.loss, 0.9)

    def step(self, row: int) -> int:
        """Returns the first step of a watched row."""
        return int(self.record.watched[row])

    @cached_property
    def evaluated(self) -> Int[np.ndarray, " E"]:
        """The watched rows whose loss was also taken in evaluation mode."""
        return np.flatnonzero(~np.isnan(self.record.eval_loss))

    def since(self, bad: Bool[np.ndarray, " E"], rows: Int[np.ndarray, " E"]) -> int:
        """Returns the first step from which a condition holds to the end.

        If it does not hold at the end, returns the first step at which it holds.

        Args:
          bad: whether it holds.
          rows: the watched rows that were asked.
        """
        if not len(bad):
            return 0
        good = np.flatnonzero(~bad)
        first = int(good[-1]) + 1 if len(good) else 0
        return self.step(int(rows[first if first < len(bad) else int(np.argmax(bad))]))
