"""The learning-rate finder: a short training at a growing rate, and the rates that it suggests.

References:
  Smith, "Cyclical learning rates for training neural networks", https://arxiv.org/abs/1506.01186.
  fastai's `lr_find` and its four rules, https://docs.fast.ai/callback.schedule.html, which the
  rules here follow to the last step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from convjax._checks import check_number, check_type
from convjax._display import Displayed
from convjax.data import Stream
from convjax.optim.schedules import exponential
from convjax.train._arguments import checked_order
from convjax.train.device_data import Images
from convjax.train.trainer import Trainer

StepValues = Float[np.ndarray, " T"]

# The losses end where the smoothed loss exceeds this many times its lowest value so far.
DIVERGED = 4.0

# No rate is suggested from the first tenth of the steps, where the average has not settled, nor
# from the last five, where the loss has diverged.
SKIPPED_SHARE, SKIPPED_END = 0.1, 5

# `slide` compares slopes of the loss this many steps apart, and stops where they differ by at most
# this, in units of the loss per step.
SLIDE_STEPS, SLIDE_SLOPE = 15, 0.005


@dataclass(frozen=True, repr=False)
class LRFind(Displayed):
    """The loss at each learning rate, up to where it diverged.

    Attributes:
      steps: number of steps taken, including those after it diverged.
      learning_rate, loss: of each batch before its update.
      smoothed: the smoothed loss so far, see `convjax.stats.smoothing.smooth`.
    """

    steps: int
    learning_rate: Float[np.ndarray, " T"]
    loss: Float[np.ndarray, " T"]
    smoothed: Float[np.ndarray, " T"]

    def __repr__(self) -> str:
        rates = f", rates {self.learning_rate[0]:.1e} to {self.learning_rate[-1]:.1e}"
        return f"LRFind({len(self.loss):,} of {self.steps:,} steps{rates})"

    @property
    def used(self) -> slice:
        """The steps that rates are suggested from: finite losses, without the first and last."""
        first, last = int(self.steps * SKIPPED_SHARE), len(self.smoothed) - SKIPPED_END
        broken = ~np.isfinite(self.smoothed[first:last])
        return slice(first, first + int(broken.argmax()) if broken.any() else max(last, first))

    @property
    def can_suggest(self) -> bool:
        """Whether there are enough steps for `suggestions`."""
        return self.used.stop - self.used.start > SLIDE_STEPS

    def suggestions(self) -> dict[str, float]:
        """Returns the rate that each rule suggests: valley, slide, minimum and steep.

        Raises:
          ValueError: if there are too few steps before the loss diverged or became NaN.
        """
        rates, losses = self.learning_rate[self.used], self.smoothed[self.used]
        if not self.can_suggest:
            raise ValueError(
                f"loss must be finite for more than {SLIDE_STEPS} steps, after the first "
                f"{self.used.start} and before the last {SKIPPED_END}, got {len(losses)}. Start at "
                "a lower rate, or take more steps."
            )
        return {name: rule(rates, losses) for name, rule in RULES.items()}


def lr_find(
    trainer: Trainer,
    model: nnx.Module,
    data: Images | Stream,
    order: Int[Array | np.ndarray, "T B"],
    *,
    start: float = 1e-7,
    end: float = 10.0,
    momentum: float = 0.9,
) -> LRFind:
    """Trains a copy of a model at a rate that grows at each step, and returns the losses.

    Args:
      trainer: its program takes the steps. A watch costs time and is ignored.
      model: gives the initial parameters, and is not changed.
      data: the training split, on the device or left in its files.
      order: indices of the examples of each batch; fastai takes 100 batches.
      start, end: the first and the last rate. It grows by the same factor at every step.
      momentum: at all steps.

    Raises:
      ValueError: if start is not below end, or as `Trainer.start`, `Trainer.run` and
        `convjax.optim.schedules.exponential`.
      TypeError: as these.

    Examples:
      >>> import numpy as np
      >>> import convjax
      >>> from flax import nnx
      >>> model = convjax.LinearNet((16, 3), rngs=nnx.Rngs(0))
      >>> trainer = convjax.Trainer(model, convjax.sgd(), watch=None)
      >>> random = np.random.default_rng(0)
      >>> pixels = random.integers(0, 256, (20, 4, 4, 1), np.uint8)
      >>> labels = np.arange(20, dtype=np.int32) % 3
      >>> images = convjax.Images.put(convjax.data.Split(pixels, labels))
      >>> order = random.integers(0, 20, (60, 5))
      >>> found = convjax.lr_find(trainer, model, images, order, start=1e-4, end=0.1)
      >>> found.steps, found.can_suggest
      (60, True)
      >>> sorted(found.suggestions())
      ['minimum', 'slide', 'steep', 'valley']
    """
    check_type("trainer", trainer, Trainer, "Trainer(model, optimizer) makes one.")
    state = trainer.start(model)
    trainer.check(state, data)
    if np.ndim(order) and not len(order):
        raise ValueError("order must hold at least one batch, got none.")
    order = checked_order(order, len(data.labels), 1)
    if not check_number("start", start) < check_number("end", end):
        raise ValueError(f"start must be below end, got {start} and {end}.")
    steps = len(order)
    table = exponential(steps, start, end, momentum).table(steps)
    _, record = trainer.run(state, data, order, table, rows=steps)
    smoothed = record.smoothed_loss()
    # The compiled loop takes all steps: stopping it early would need a wait at every step.
    lowest = np.fmin.accumulate(smoothed)
    diverged = smoothed > DIVERGED * lowest
    taken = int(diverged.argmax()) + 1 if diverged.any() else steps
    return LRFind(steps, record.learning_rate[:taken], record.loss[:taken], smoothed[:taken])


def valley(rates: StepValues, losses: StepValues) -> float:
    """Returns the rate in the middle of the longest fall of the loss.

    A fall is a sequence of steps, not always neighbours, each with a lower loss than the one
    before. On a curve whose only fall is at its beginning, fastai's index wraps around to the last
    step, which has the highest rate of all. This index stays at the first step.
    """
    longest = np.ones(len(losses), int)  # length of the longest fall that ends here
    for i in range(1, len(losses)):
        longest[i] += np.max(longest[:i], where=losses[:i] > losses[i], initial=0)
    end = int(longest.argmax())
    # fastai counts the length back from the end, whatever lies between, and one too far.
    start = max(end - longest[end], 0)
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def slide(rates: StepValues, losses: StepValues) -> float:
    """Returns the rate at which the slope of the loss stops changing, searched from the end.

    It is the first step whose slope equals that of the step 15 later.
    """
    slopes = np.gradient(losses)
    left = len(losses) - 1 - SLIDE_STEPS
    found = left
    while left >= 0 and abs(slopes[left + SLIDE_STEPS] - slopes[left]) > SLIDE_SLOPE:
        found = left
        left -= 1
    return float(rates[found])


def minimum(rates: StepValues, losses: StepValues) -> float:
    """Returns a tenth of the rate at the lowest loss."""
    return float(rates[losses.argmin()]) / 10


def steep(rates: StepValues, losses: StepValues) -> float:
    """Returns the rate at which the loss falls fastest, over the logarithm of the rate."""
    slopes = np.diff(losses) / np.diff(np.log(rates))
    return float(rates[slopes.argmin()])


RULES: dict[str, Callable[[StepValues, StepValues], float]] = {
    "valley": valley,
    "slide": slide,
    "minimum": minimum,
    "steep": steep,
}
