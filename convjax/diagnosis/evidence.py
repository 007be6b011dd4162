"""What a diagnosis reads from a record: which layers feed a non-linearity, and windows of steps."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from convjax.stats.parameters import ParameterRecord
from convjax.stats.record import Array, Record, smooth
from convjax.stats.watch import INPUT, LABELS

# A layer is taken for a normalisation by its name, such as "blocks.0.norm", "BatchNorm_0" or "bn1".
_NORM = re.compile(r"norm|(^|[._])bn_?\d*$", re.IGNORECASE)


def network_columns(record: Record) -> tuple[int, ...]:
    """Returns the columns of the network's own layers: not of what it is given and asked for."""
    return tuple(i for i, name in enumerate(record.layers) if name not in (INPUT, LABELS))


@dataclass(frozen=True)
class Evidence:
    """A record and what is known of its training besides.

    Attributes:
      classes: of the task; 0 where it has none, or they are not known.
      nonlinearity: what follows the hidden layers: "relu", "tanh" or "sigmoid".
    """

    record: Record
    classes: int
    nonlinearity: str

    @property
    def guess(self) -> float:
        """Cross entropy of guessing all classes alike, in nats; 0 where they are not known."""
        return math.log(self.classes or 1)

    @cached_property
    def network(self) -> tuple[int, ...]:
        """Columns of the network's own layers."""
        return network_columns(self.record)

    @cached_property
    def hidden(self) -> tuple[int, ...]:
        """Columns of the layers whose output a non-linearity takes: not the last of the network,
        and of a layer and the norm after it the norm alone."""
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
        name = self.record.layers[column].split("#")[0]  # also where it is called again
        return _NORM.search(name) is not None

    @property
    def parameters(self) -> ParameterRecord:
        """Of the record, which a symptom that asks for it makes sure of."""
        assert self.record.parameters is not None
        return self.record.parameters

    @property
    def kernels(self) -> Array:
        """Which of the parameters are kernels, (P,)."""
        return self.parameters.kernels

    @cached_property
    def kernel_names(self) -> tuple[str, ...]:
        """Names of the kernels."""
        pairs = zip(self.parameters.names, self.kernels, strict=True)
        return tuple(name for name, kernel in pairs if kernel)

    @cached_property
    def ratios(self) -> Array:
        """Update-to-weight ratios of the kernels, (S, K)."""
        return self.parameters.update_ratio[:, self.kernels]

    @cached_property
    def gradient(self) -> Array:
        """Norm of the whole gradient, (S,)."""
        with np.errstate(over="ignore"):
            squares = np.square(self.parameters.grad_norm, dtype=np.float64)
            return np.asarray(np.sqrt(squares.sum(axis=1)))

    @cached_property
    def rows(self) -> Array:
        """The rows of the record that hold those of the parameters, (S,)."""
        return self.row_of(self.parameters.watched)

    def row_of(self, watched: Array) -> Array:
        """Returns the rows of the record that hold the steps `watched`."""
        return np.asarray(np.searchsorted(self.record.first, watched, side="right") - 1)

    @property
    def every(self) -> int:
        """Steps from one watched row to the next, as a rule."""
        return int(np.median(np.diff(self.record.watched))) if len(self.record.watched) > 1 else 1

    @cached_property
    def loss(self) -> Array:
        """The loss so far averaged over about ten rows, (R,)."""
        return smooth(self.record.loss, 0.9)

    @property
    def tail(self) -> slice:
        """The last quarter of the watched rows."""
        return slice(-max(len(self.record.watched) // 4, 1), None)

    def step(self, row: int) -> int:
        """Returns the first step of a watched row."""
        return int(self.record.watched[row])

    def since(self, bad: Array) -> int:
        """Returns the first step of the watched rows from which something holds to the end, or at
        least holds for the first time."""
        if not len(bad):
            return 0
        kept = np.flatnonzero(~bad)
        row = int(kept[-1]) + 1 if len(kept) else 0
        return self.step(row if row < len(bad) else int(np.argmax(bad)))
