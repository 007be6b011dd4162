"""The evidence of a diagnosis: quantities that several indicators derive from a record."""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from convjax.diagnosis.thresholds import (
    LEFT_BEHIND,
    NEARLY_SAME_LOSS,
    SLOW_PROGRESS,
    STUCK_PROGRESS,
)
from convjax.nn.outputs import LayerKind
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record
from convjax.stats.smoothing import smooth
from convjax.stats.watch import INPUT, LABELS

NONLINEARITIES = ("relu", "tanh", "sigmoid")

# A layer counts as a normalisation by its name, such as "blocks.0.norm", "BatchNorm_0" or "bn1".
_NORM = re.compile(r"norm|(^|[._])bn_?\d*$", re.IGNORECASE)

# What the last layer may be followed by, in the loss.
OF_LOSSES = ("", "log_softmax", "softmax", "log_sigmoid")

# Parameters with several axes that are not kernels.
_TABLE = re.compile(r"embed|(^|[._])(pos|cls)|token|scale|gamma|bias|temperature", re.IGNORECASE)


def network_columns(record: Record) -> tuple[int, ...]:
    """Returns the columns of the network's layers, without those of its input and labels."""
    return tuple(i for i, name in enumerate(record.layers) if name not in (INPUT, LABELS))


# A loss that differs from that of a formula by less than this share is of that formula.
SAME_LOSS = 0.01

_FORMULAS = (
    *("loss of logits", "loss of probabilities", "squared error", "absolute error", "hinge loss"),
    *("squared error of pairs", "absolute error of pairs", "loss of pairs"),
)

# The share of the steps at which two losses must be the same.
MOST_STEPS = 0.8


@dataclass(frozen=True)
class Evidence:
    """A record, the number of classes and the non-linearity of its network.

    Attributes:
      record: of the training so far.
      classes: of the task; 0 if it has none, or their number is not known.
      nonlinearity: that follows the hidden layers whose own was not recognised, one of
        `NONLINEARITIES`.
    """

    record: Record
    classes: int
    nonlinearity: str

    # --- facts of the batches ----------------------------------------------------------------

    def fact(self, name: str) -> Float[np.ndarray, " S"]:
        """Returns a fact of the batches by watched row, NaN where it was not taken."""
        missing = np.full(len(self.record.watched), np.nan, np.float32)
        return self.record.facts.get(name, missing)

    def usual(self, name: str) -> float:
        """Returns the median of a fact, NaN where it was never taken."""
        found = self.fact(name)
        found = found[~np.isnan(found)]
        return float(np.median(found)) if len(found) else math.nan

    @cached_property
    def watched_loss(self) -> Float[np.ndarray, " S"]:
        """The loss of the watched rows."""
        return np.asarray(self.record.loss[self.row_of(self.record.watched)])

    def is_loss(self, name: str, factor: float = 1.0, *, within: float = SAME_LOSS) -> bool:
        """Returns whether the loss of most steps is that of a formula, times a factor.

        Args:
          name: of the fact.
          factor: such as the number of examples, for a sum.
          within: the share by which the two may differ.
        """
        wanted = factor * self.fact(name)
        known = np.isfinite(wanted) & np.isfinite(self.watched_loss)
        if not known.any():
            return False
        apart = np.abs(self.watched_loss - wanted)[known]
        return bool(np.mean(apart <= within * np.abs(wanted[known]) + 1e-6) >= MOST_STEPS)

    @cached_property
    def unrecognised_loss(self) -> bool:
        """Whether a loss written by hand is none of the usual ones, not even nearly."""
        if not self.usual("loss by hand") > 0:
            return False
        examples = self.usual("examples")
        factors = 1.0, 0.5, examples, examples / 2
        return not any(self.is_loss(name, f, within=0.2) for name in _FORMULAS for f in factors)

    @cached_property
    def guessed_labels(self) -> bool:
        """Whether the labels are those of a loss that is not recognised, and that works."""
        return self.unrecognised_loss and bool(np.isfinite(self.record.loss).all())

    @property
    def is_classification(self) -> bool:
        """Whether each label is one of several classes, or a mixture of them."""
        one = "squared error" not in self.record.facts
        return self.usual("outputs") > 1 and (one or self.has_mixtures)

    @cached_property
    def has_mixtures(self) -> bool:
        """Whether labels are rows of probabilities: one-hot, smoothed or mixed."""
        low, high = self.fact("label sum low"), self.fact("label sum high")
        if not np.isfinite(low).any() or np.nanmin(self.fact("label low")) < 0:
            return False
        return bool(np.nanmax(np.abs(np.subtract((low, high), 1))) < 0.01)

    @cached_property
    def is_binary(self) -> bool:
        """Whether labels and outputs match one to one, and labels are probabilities."""
        low, high = self.fact("label low"), self.fact("label high")
        return (
            "squared error" in self.record.facts
            and len(low) > 0
            and bool(np.nanmin(low) >= 0 and np.nanmax(high) <= 1)
            and (self.usual("label not whole") == 0 or self._is_cross_entropy)
        )

    @cached_property
    def _is_cross_entropy(self) -> bool:
        return self.is_loss("loss of logits") or self.is_loss("loss of probabilities")

    @cached_property
    def has_masks_of_other_numbers(self) -> bool:
        """Whether outputs are probabilities and labels two numbers other than 0 and 1."""
        low, high = self.fact("label low"), self.fact("label high")
        output = self.fact("output low"), self.fact("output high")
        return (
            "squared error" in self.record.facts
            and self.usual("label classes") == 2
            and self.usual("label not whole") == 0
            and bool(np.nanmin(low) == 0 and np.nanmax(high) > 1)
            and bool(np.nanmin(output[0]) >= 0 and np.nanmax(output[1]) <= 1)
        )

    @cached_property
    def is_regression(self) -> bool:
        """Whether outputs match targets one to one, and the loss is a distance of the two."""
        if "squared error" not in self.record.facts or self.has_mixtures:
            return False
        of = ("squared error", 1.0), ("squared error", 0.5), ("absolute error", 1.0)
        return any(self.is_loss(name, factor) for name, factor in of) or not self.is_binary

    @cached_property
    def probabilities(self) -> bool:
        """Whether the network's outputs are probabilities at every step: a softmax or sigmoid."""
        low, high = self.fact("output low"), self.fact("output high")
        if not (len(low) and np.nanmin(low) >= 0 and np.nanmax(high) <= 1 + 1e-3):
            return False
        if self.is_classification:
            sums = self.fact("output sum low"), self.fact("output sum high")
            return bool(np.nanmax(np.abs(np.subtract(sums, 1))) < 0.02)
        # Twenty steps of a training leave the range from 0 to 1, unless a sigmoid keeps it.
        return len(low) >= 20 and bool(np.nanmin(low) > 0)

    @cached_property
    def learning(self) -> Float[np.ndarray, " R"]:
        """What shows best whether the network learns, by row: the loss of the outputs.

        It is the cross entropy of the outputs and labels, or their squared error. It has none of
        what a loss may add or smooth. Where it is not known, it is the loss.
        """
        name = ""
        if self.is_classification or (self.is_binary and not self.is_regression):
            name = "loss of probabilities" if self.probabilities else "loss of logits"
        elif self.is_regression:
            name = "squared error"
        found = self.fact(name)
        if not np.isfinite(found).any() or (name != "squared error" and self.usual(name) < 0):
            return self.loss
        if self.unrecognised_loss or self._leaves_labels_out(found):
            return self.loss
        rows = self.row_of(self.record.watched)
        column = np.interp(np.arange(len(self.record.loss)), rows, found)
        column[~np.isfinite(self.record.loss)] = np.nan
        return smooth(column.astype(np.float32), 0.9)

    def _leaves_labels_out(self, found: Float[np.ndarray, " S"]) -> bool:
        """Returns whether the loss of all outputs, first that of the step, is then left behind.

        So it is where a loss has a mask, as for labels that are to be ignored: what the outputs of
        these are says nothing of the training.
        """
        loss = self.watched_loss
        few = max(len(loss) // 10, 1)
        (first, last), (first_found, last_found) = (
            (float(np.median(values[:few])), float(np.median(values[-few:])))
            for values in (loss, found)
        )
        same_at_first = abs(first - first_found) <= NEARLY_SAME_LOSS * first_found
        return same_at_first and 0 <= last < LEFT_BEHIND * min(first, last_found)

    @cached_property
    def guess(self) -> float:
        """The value of `learning` for the best constant answer; 0 if it is not known.

        For classes this is the entropy of the labels, in nats: less than ln K where some classes
        are rare. For targets it is their variance.
        """
        if self.unrecognised_loss:
            return 0.0
        if self.learning is not self.loss and self.is_regression:
            column = self.record.layers.index(LABELS) if LABELS in self.record.layers else None
            return 0.0 if column is None else self._target_variance(column)
        of_outputs = self.usual("label entropy by output")
        if self.is_binary and not self.has_mixtures and not math.isnan(of_outputs):
            return of_outputs
        of_classes = math.log(self.classes or 1)
        entropy = self.label_entropy
        # Batches of one class each say nothing of the whole.
        if np.isnan(entropy) or self.usual("label classes") < 2:
            return of_classes
        return min(entropy, of_classes) if of_classes else entropy

    @property
    def label_entropy(self) -> float:
        """The mean entropy of the classes in a batch, in nats; NaN if it is not known."""
        known = self.is_classification or self.is_binary or self._has_classes_alone
        found = self.fact("label entropy")
        return float(np.nanmean(found)) if known and np.isfinite(found).any() else math.nan

    @property
    def _has_classes_alone(self) -> bool:
        """Whether labels are classes, by themselves: the outputs are not known."""
        one = math.isnan(self.usual("outputs")) and self.usual("label size") == 1
        entropy, first = self.usual("label entropy"), self.record.loss[:3]
        if not one or self.usual("label not whole") != 0 or not len(first):
            return False
        # A cross entropy begins near that of guessing.
        return bool(0.5 * entropy < np.median(first) < 3 * entropy)

    def _target_variance(self, column: int) -> float:
        mean, std = self.record.mean[:, column], self.record.std[:, column]
        return float(np.mean(std.astype(float) ** 2) + np.var(mean.astype(float)))

    @property
    def floor(self) -> float:
        """The least value of `learning`: above 0 only for labels that are mixtures of classes."""
        name = "label mixture" if self.has_mixtures else "label entropy of each"
        mixture = self.usual(name)
        mixed = self.has_mixtures or (self.is_binary and not self.is_regression)
        return mixture if mixed and not np.isnan(mixture) else 0.0

    @property
    def progress(self) -> float:
        """The share of the way from guessing to the least loss, NaN where either is not known."""
        if not self.guess:
            return math.nan
        return (self.guess - float(self.learning[-1])) / max(self.guess - self.floor, 1e-9)

    @property
    def is_slow(self) -> bool:
        """Whether the loss is known to have fallen too little.

        With dropout the loss in training stays high though the network learns: only one that is
        stuck is too high.
        """
        dropout = not math.isnan(self.usual("dropout noise"))
        return self.progress < (STUCK_PROGRESS if dropout else SLOW_PROGRESS)

    # --- layers ------------------------------------------------------------------------------

    @cached_property
    def network(self) -> tuple[int, ...]:
        """Columns of the network's layers."""
        return network_columns(self.record)

    @cached_property
    def input_size(self) -> float:
        """The root mean square of the first input.

        Without one, of tokens or unknown, it is the largest std of the layers up to the first
        normalisation: an embedding may be small on purpose.
        """
        record = self.record
        if INPUT in record.layers:
            column = record.layers.index(INPUT)
            return float(np.hypot(record.mean[0, column], record.std[0, column])) or 1.0
        norms = [place for place, i in enumerate(self.network) if self.is_norm(i)]
        first = self.network[: norms[0] + 1 if norms else 1]
        return float(record.std[0, list(first)].max()) or 1.0

    @cached_property
    def hidden(self) -> tuple[int, ...]:
        """Columns of the layers before a non-linearity.

        The last layer of the network, and layers that a normalisation follows, are left out.
        """
        last = self.network[-1:]
        if last and self.is_norm(last[0]):
            last = self.network[-2:]
        normed = {i for i, after in pairwise(self.network) if self.is_norm(after)}
        return tuple(i for i in self.network if i not in last and i not in normed)

    @property
    def has_norms(self) -> bool:
        """Whether one of the layers is a normalisation."""
        return any(map(self.is_norm, self.network))

    def is_norm(self, column: int) -> bool:
        """Returns whether a layer is a normalisation: by its class, else by its name."""
        if kind := self.kind(column).module:
            return _NORM.search(kind) is not None
        name = self.record.layers[column].split("#")[0]  # a "#" marks later calls of the layer
        return _NORM.search(name) is not None

    def kind(self, column: int) -> LayerKind:
        """Returns what a layer is, as far as it is known."""
        return self.record.kinds[column] if self.record.kinds else LayerKind()

    def nonlinearity_after(self, column: int) -> str:
        """Returns the non-linearity after a layer, "" for none."""
        return self.kind(column).nonlinearity if self._knows else self.nonlinearity

    @cached_property
    def _knows(self) -> bool:
        """Whether non-linearities of the network were recognised, besides those of the loss."""
        return any(kind.nonlinearity not in OF_LOSSES for kind in self.record.kinds)

    @property
    def parameters(self) -> ParameterRecord:
        """The record of the parameters, which exists for symptoms that need it."""
        assert self.record.parameters is not None
        return self.record.parameters

    @property
    def kernels(self) -> Bool[np.ndarray, " P"]:
        """Whether each parameter is a kernel.

        Tables of embeddings, tokens and positions have two axes, too, but rows that no example of
        a batch may use; and the bias of a key has a gradient of zero by construction.
        """
        named = [_TABLE.search(name) is None for name in self.parameters.names]
        return self.parameters.kernels & np.array(named, bool)

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
