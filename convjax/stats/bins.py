"""Bins of a histogram of activations: the range that is counted, how finely, and two presets."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from convjax._checks import check_number, check_whole, describe_value

# A bin narrower than this share of the largest edge is only a few float32 numbers wide.
_NARROWEST = 1e-6


@dataclass(frozen=True)
class Bins:
    """Bins of equal width. Each holds its lower edge, and the last holds its upper edge too.

    Values below `low` are counted as `under`, values above `high` as `over`.

    Attributes:
      low: lower end of the range, in units of the activation.
      high: upper end of the range.
      count: number of bins.

    Raises:
      TypeError: if low or high is not a number, or count is not a whole number.
      ValueError: if the range is empty or not finite, count is below 1, or the bins are too narrow
        for float32.

    Examples:
      >>> from convjax.stats import Bins
      >>> Bins(-1.0, 1.0, 4).edges.tolist()
      [-1.0, -0.5, 0.0, 0.5, 1.0]
    """

    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            number = check_number(name, getattr(self, name))
            if not np.isfinite(number):
                raise ValueError(f"{name} must be finite, got {number}.")
            object.__setattr__(self, name, number)
        object.__setattr__(self, "count", check_whole("count", self.count, 1))
        if self.high <= self.low:
            raise ValueError(f"high must be above low, got low {self.low:g}, high {self.high:g}.")
        largest = max(abs(self.low), abs(self.high))
        float32 = np.finfo(np.float32)
        # Devices treat numbers below the smallest normal one as 0.
        narrowest = max(_NARROWEST * largest, float(float32.smallest_normal))
        if largest > float(float32.max) or self.width < narrowest:
            raise ValueError(
                f"bins must be at least {_NARROWEST:g} of the larger of |low| and |high| wide, and "
                f"in the range of float32, got {self}. Use fewer bins or another range."
            )

    @property
    def width(self) -> float:
        """The width of one bin, in units of the activation."""
        return (self.high - self.low) / self.count

    @property
    def edges(self) -> Float[np.ndarray, " edges"]:
        """The edges of the bins, float64, each rounded to float32 as the counted values are."""
        edges = np.linspace(self.low, self.high, self.count + 1)
        # An edge at 0 stays there: otherwise rounding would put zeros into the bin below.
        edges[np.abs(edges) < 1e-9 * self.width] = 0
        return edges.astype(np.float32).astype(np.float64)


FASTAI = Bins(0.0, 10.0, 40)  # of fastai's ActivationStats
PRESETS = {"fastai": FASTAI, "symmetric": Bins(-5.0, 5.0, 40)}


def as_bins(bins: Bins | str) -> Bins:
    """Returns bins that are given as such or by the name of a preset.

    Args:
      bins: "fastai", 40 bins over 0 to 10; "symmetric", 40 bins over -5 to 5, for the outputs of
        GELU, tanh or a normalisation; or any other bins.

    Raises:
      TypeError: if it is neither bins nor a name.
      ValueError: if no preset has the name.

    Examples:
      >>> as_bins("symmetric")
      Bins(low=-5.0, high=5.0, count=40)
    """
    rule = f"bins must be {', '.join(map(repr, PRESETS))} or a Bins"
    fix = "For other bins pass convjax.Bins(low, high, count)."
    if isinstance(bins, Bins):
        return bins
    if not isinstance(bins, str):
        raise TypeError(f"{rule}, got {describe_value(bins)}. {fix}")
    if bins not in PRESETS:
        raise ValueError(f"{rule}, got {bins!r}. {fix}")
    return PRESETS[bins]
