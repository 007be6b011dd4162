"""The step at which a training stopped being finite, and the first layer that is not finite."""

from dataclasses import dataclass

import numpy as np

from convjax.stats.record import Record


@dataclass(frozen=True)
class NonFinite:
    """The first step whose loss is not finite, and the first layer that is not.

    Attributes:
      step: counted from the start of the training.
      loss: nan, inf or -inf.
      seen_at: the first watched step from `step` on, or None.
      layer: the first layer, in the order of the calls, whose mean is not finite at `seen_at`; None
        if all are finite or no layer was watched.
    """

    step: int
    loss: float
    seen_at: int | None
    layer: str | None

    def __str__(self) -> str:
        loss = f"the loss is {self.loss} at step {self.step}"
        if self.seen_at is None:
            return f"{loss}; no layer was watched from there on"
        when = "there" if self.seen_at == self.step else f"at step {self.seen_at}, the next watched"
        if self.layer is None:
            return f"{loss}; the outputs of all watched layers are finite {when}"
        return f"{loss}; the first layer that is not finite {when} is {self.layer}"


class NonFiniteError(ArithmeticError):
    """Raised when a training is stopped because its loss is not finite.

    Attributes:
      found: the step and the layer.
    """

    def __init__(self, found: NonFinite):
        super().__init__(f"{found}.")
        self.found = found


def first_non_finite(record: Record, first_step: int = 0) -> NonFinite | None:
    """Returns the first step of a record whose loss is not finite, or None.

    In a merged record the steps are those at which rows begin.

    Args:
      record: of any part of a training.
      first_step: of the record, within the training.

    Examples:
      >>> from convjax.stats import Recorder, first_non_finite
      >>> recorder = Recorder()
      >>> for loss in (0.5, float("nan")):
      ...     recorder.add(loss)
      >>> print(first_non_finite(recorder.record()))
      the loss is nan at step 1; no layer was watched from there on
    """
    rows = np.flatnonzero(~np.isfinite(record.loss))
    if not len(rows):
        return None
    step = int(record.first[rows[0]])
    row = int(np.searchsorted(record.watched, step))
    seen_at, layer = None, None
    if row < len(record.watched) and record.layers:
        seen_at = first_step + int(record.watched[row])
        columns = np.flatnonzero(~np.isfinite(record.mean[row]))
        layer = record.layers[columns[0]] if len(columns) else None
    return NonFinite(first_step + step, float(record.loss[rows[0]]), seen_at, layer)
