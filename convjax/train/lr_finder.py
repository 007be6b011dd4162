"""The learning-rate finder: a short training at a rate that grows, and what it suggests.

References: Smith, "Cyclical learning rates for training neural networks",
https://arxiv.org/abs/1506.01186; fastai's `lr_find` and its four rules,
https://docs.fast.ai/callback.schedule.html, which these follow to the last step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flax import nnx

from convjax._checks import check_number, check_type
from convjax._display import Displayed
from convjax.optim.schedules import exponential
from convjax.stats.record import Array
from convjax.train._arguments import checked_order
from convjax.train.device_data import Images
from convjax.train.trainer import Trainer

# A sweep ends where the smoothed loss is so many times its lowest so far.
DIVERGED = 4.0

# No rate is suggested from the first tenth of the steps, where the average has not settled, nor
# from the last five, where the loss has blown up.
SKIPPED_SHARE, SKIPPED_END = 0.1, 5

# `slide` compares the slopes of the loss so many steps apart, and stops where they are as close as
# this, in units of the loss per step.
SLIDE_STEPS, SLIDE_SLOPE = 15, 0.005


@dataclass(frozen=True, repr=False)
class LRFind(Displayed):
    """The loss at each rate of a sweep, up to where it diverged.

    Attributes:
      steps: that the whole sweep has.
      learning_rate, loss: (T,), of each batch before its update.
      smoothed: (T,), the average so far, see `convjax.stats.record.smooth`.
    """

    steps: int
    learning_rate: Array
    loss: Array
    smoothed: Array

    def __repr__(self) -> str:
        rates = f", rates {self.learning_rate[0]:.1e} to {self.learning_rate[-1]:.1e}"
        return f"LRFind({len(self.loss):,} of {self.steps:,} steps{rates})"

    @property
    def used(self) -> slice:
        """The steps that rates are suggested from: finite losses, less the first and the last."""
        first, last = int(self.steps * SKIPPED_SHARE), len(self.smoothed) - SKIPPED_END
        broken = ~np.isfinite(self.smoothed[first:last])
        return slice(first, first + int(broken.argmax()) if broken.any() else max(last, first))

    @property
    def can_suggest(self) -> bool:
        """Whether enough steps are left for `suggestions`."""
        return self.used.stop - self.used.start > SLIDE_STEPS

    def suggestions(self) -> dict[str, float]:
        """Returns the rate that each rule suggests: valley, slide, minimum and steep.

        Raises:
          ValueError: if too few steps are left before the loss diverged or stopped being a number.
        """
        rates, losses = self.learning_rate[self.used], self.smoothed[self.used]
        if not self.can_suggest:
            raise ValueError(
                f"a suggestion needs more than {SLIDE_STEPS} steps with a finite loss, after the "
                f"first {self.used.start} and before the last {SKIPPED_END}; got {len(losses)}. "
                "Start at a lower rate, or take more steps."
            )
        return {name: rule(rates, losses) for name, rule in RULES.items()}


def lr_find(
    trainer: Trainer,
    model: nnx.Module,
    data: Images,
    order: npt.NDArray[np.integer[Any]],
    *,
    start: float = 1e-7,
    end: float = 10.0,
    momentum: float = 0.9,
) -> LRFind:
    """Trains a copy of a model at a rate that grows from step to step, and keeps the losses.

    Args:
      trainer: its program does the training; a watch costs time and is not looked at.
      model: gives the initial parameters, and stays as it is.
      data: the training split on the device.
      order: (T, B) indices of the examples of each batch; fastai takes 100 batches.
      start, end: of the rate, which grows by the same factor at every step.
      momentum: at all steps.

    Raises:
      ValueError: if start is not below end; and, like TypeError, as `Trainer.start`, `Trainer.run`
        and `convjax.optim.schedules.exponential`.
    """
    check_type("trainer", trainer, Trainer, "Trainer(model, optimizer) makes one.")
    check_type("data", data, Images, "Images.put(split) copies a split to the device.")
    if np.ndim(order) and not len(order):
        raise ValueError("order must hold one batch or more, got none.")
    order = checked_order(order, len(data.labels), 1)
    if not check_number("start", start) < check_number("end", end):
        raise ValueError(f"start must be below end, got {start} and {end}.")
    steps = len(order)
    table = exponential(steps, start, end, momentum).table(steps)
    _, record = trainer.run(trainer.start(model), data, order, table, rows=steps)
    smoothed = record.smoothed_loss()
    # The compiled loop takes all steps: to stop it early would cost a wait at every step.
    lowest = np.fmin.accumulate(smoothed)
    diverged = smoothed > DIVERGED * lowest
    taken = int(diverged.argmax()) + 1 if diverged.any() else steps
    return LRFind(steps, record.learning_rate[:taken], record.loss[:taken], smoothed[:taken])


def valley(rates: Array, losses: Array) -> float:
    """Suggests the middle of the longest fall: of steps, not always neighbours, each lower than
    the one before.

    Where fastai's index wraps from the first step to the last, on a curve whose only fall is at its
    beginning, this stays at the first: the highest rate of all would be no suggestion.
    """
    longest = np.ones(len(losses), int)  # length of the longest fall that ends here
    for i in range(1, len(losses)):
        longest[i] += np.max(longest[:i], where=losses[:i] > losses[i], initial=0)
    end = int(longest.argmax())
    # fastai counts the length back from the end, whatever lies between, and one too far.
    start = max(end - longest[end], 0)
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def slide(rates: Array, losses: Array) -> float:
    """Suggests the rate where the loss stops changing its slope, seen from the end: the first step
    whose slope is that of the step 15 later."""
    slopes = np.gradient(losses)
    left = len(losses) - 1 - SLIDE_STEPS
    found = left
    while left >= 0 and abs(slopes[left + SLIDE_STEPS] - slopes[left]) > SLIDE_SLOPE:
        found = left
        left -= 1
    return float(rates[found])


def minimum(rates: Array, losses: Array) -> float:
    """Suggests a tenth of the rate at the lowest loss."""
    return float(rates[losses.argmin()]) / 10


def steep(rates: Array, losses: Array) -> float:
    """Suggests the rate at which the loss falls fastest, over the logarithm of the rate."""
    slopes = np.diff(losses) / np.diff(np.log(rates))
    return float(rates[slopes.argmin()])


RULES: dict[str, Callable[[Array, Array], float]] = {
    "valley": valley,
    "slide": slide,
    "minimum": minimum,
    "steep": steep,
}
