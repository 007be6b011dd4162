"""The record of a training's parameters, gradients and updates, as NumPy arrays by watched step."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from convjax.stats.merging import count_dtype, group_starts, sum_of_rows
from convjax.stats.parameter_forms import LOG_BINS, LOG_FIRST
from convjax.stats.parameters import Described, Norms

_NORMS = ("weight_norm", "grad_norm", "update_norm")
_HISTOGRAMS = ("grad_hist", "update_hist")


@dataclass(frozen=True, repr=False)
class ParameterRecord:
    """S rows of statistics of P parameters; a row may hold several merged steps.

    Norms and histograms that were not recorded have no rows.

    Attributes:
      names: paths of the parameters, with dots.
      sizes: (P,) number of elements.
      ndims: (P,) number of axes.
      watched: (S,) the first step of each row.
      watched_count: (S,) the number of steps in each row; for an ensemble, times its members, which
        count as steps do.
      weight_norm: (S, P) norm of the weights, root mean square over the steps of a row.
      grad_norm: (S, P) norm of the gradient, likewise.
      update_norm: (S, P) norm of the update, likewise.
      grad_hist: (S, P, 42) counts of the gradient's magnitudes: under 2^-34, forty bins of a factor
        of 2, and from 2^6 on.
      update_hist: (S, P, 42) counts of the update's magnitudes, likewise.
    """

    names: tuple[str, ...]
    sizes: Int[np.ndarray, " P"]
    ndims: Int[np.ndarray, " P"]
    watched: Int[np.ndarray, " S"]
    watched_count: Int[np.ndarray, " S"]
    weight_norm: Float[np.ndarray, "S P"]
    grad_norm: Float[np.ndarray, "_ P"]
    update_norm: Float[np.ndarray, "_ P"]
    grad_hist: Num[np.ndarray, "_ P _"]
    update_hist: Num[np.ndarray, "_ P _"]

    def __repr__(self) -> str:
        rows, parameters = len(self.watched), len(self.names)
        return f"ParameterRecord({rows:,} rows, {parameters:,} parameters)"

    @property
    def kernels(self) -> Bool[np.ndarray, " P"]:
        """Whether each parameter is a kernel or matrix, and not a bias or scale."""
        return np.asarray(self.ndims > 1)

    @property
    def update_ratio(self) -> Float[np.ndarray, "S P"]:
        """The norm of the update over that of the weights; infinite where the weights are zero.

        Raises:
          ValueError: if the record has no updates.

        References:
          Karpathy's rule of thumb is 1e-3: https://cs231n.github.io/neural-networks-3/#ratio
        """
        if len(self.update_norm) < len(self.watched):
            raise ValueError(
                "record must hold updates, got none. Train with Watch(updates=True), or give "
                "parameter_stats the updated parameters."
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.update_norm / self.weight_norm)

    @property
    def grad_rms(self) -> Float[np.ndarray, "_ P"]:
        """The root mean square of each parameter's gradient."""
        return np.asarray(self.grad_norm / np.sqrt(self.sizes))

    @property
    def hist_edges(self) -> Float[np.ndarray, " 41"]:
        """Edges of the histograms' bins: powers of two."""
        return 2.0 ** np.arange(LOG_FIRST, LOG_FIRST + LOG_BINS + 1)

    def between(self, start: int, stop: int) -> "ParameterRecord":
        """Returns the rows that begin at the steps from `start` to before `stop`.

        Their steps are counted from `start`.
        """
        inside = slice(*np.searchsorted(self.watched, (start, stop)))
        cut = {name: getattr(self, name)[inside] for name in _ROWS}
        return replace(self, **cut | {"watched": cut["watched"] - start})

    def merged(self, first: Int[np.ndarray, " G"]) -> "ParameterRecord":
        """Returns the record with rows merged into those that begin at the steps `first`."""
        if not len(self.watched):
            return self
        starts = group_starts(first, self.watched)
        counts = self.watched_count.astype(np.float64)
        total = np.add.reduceat(counts, starts)

        def root_mean_square(norm: Any) -> Any:
            if not len(norm):
                return norm
            with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
                squares = counts[:, None] * np.asarray(norm, np.float64) ** 2
                mean = np.add.reduceat(squares, starts) / total[:, None]
                return np.sqrt(mean).astype(np.float32)

        def summed(hist: Any) -> Any:
            dtype = count_dtype(total[:, None] * self.sizes)
            return sum_of_rows(hist, starts, dtype) if len(hist) else hist

        changed: dict[str, Any] = {
            "watched": self.watched[starts],
            "watched_count": np.add.reduceat(self.watched_count, starts),
            **{name: root_mean_square(getattr(self, name)) for name in _NORMS},
            **{name: summed(getattr(self, name)) for name in _HISTOGRAMS},
        }
        return replace(self, **changed)

    @classmethod
    def from_steps(
        cls,
        of: Described,
        watched: Int[np.ndarray, " S"],
        stats: Norms,
        members: Int[np.ndarray, " S"] | int = 1,
    ) -> "ParameterRecord":
        """Returns the record of statistics whose first axis is the watched step.

        Args:
          of: the parameters.
          watched: the steps.
          stats: the root mean square of the norms of all members, and their summed counts.
          members: of the ensemble at each step.
        """

        def column(name: str) -> Any:
            value = getattr(stats, name)
            if value is not None:
                return np.asarray(value)
            bins = (LOG_BINS + 2,) if name in _HISTOGRAMS else ()
            return np.zeros((0, len(of.names), *bins), np.int32 if bins else np.float32)

        return cls(
            of.names,
            np.array(of.sizes, np.int64),
            np.array(of.ndims, np.int64),
            np.asarray(watched, np.int64),
            np.full(len(watched), members, np.int64),
            **{name: column(name) for name in Norms._fields},
        )

    @classmethod
    def joined(
        cls, records: "Sequence[ParameterRecord]", before: Sequence[int]
    ) -> "ParameterRecord":
        """Joins records of successive parts of a training.

        Args:
          records: one or more.
          before: the number of steps before the first of each record.

        Raises:
          ValueError: if their parameters or quantities differ.
        """
        kinds = {
            (r.names, tuple(r.sizes), *(len(getattr(r, name)) > 0 for name in _OPTIONAL))
            for r in records
            if len(r.watched)
        }
        if len(kinds) > 1:
            raise ValueError(
                "records must be of one training: the same parameters and the same quantities."
            )
        columns = {name: [getattr(record, name) for record in records] for name in _ROWS}
        columns["watched"] = [w + b for w, b in zip(columns["watched"], before, strict=True)]
        joined: dict[str, Any] = {name: np.concatenate(c) for name, c in columns.items()}
        return replace(records[0], **joined)


_OPTIONAL = (*_NORMS[1:], *_HISTOGRAMS)
_ROWS = tuple(f.name for f in fields(ParameterRecord) if f.name not in Described._fields)
