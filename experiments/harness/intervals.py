"""Mean differences and shares with their confidence intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean difference, or a share, with the ends of its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool | None:
        """Whether the whole interval lies above 0; None where it holds 0 or is not finite."""
        told = math.isfinite(self.mean) and not self.low <= 0 <= self.high
        return self.low > 0 if told else None

    def __str__(self) -> str:
        return self.text(4)

    def text(self, digits: int) -> str:
        """Returns the mean and the ends with so many digits after the point."""
        mean, low, high = (f"{value:+.{digits}f}" for value in self)
        return f"{mean} (95 % from {low} to {high})"


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Returns the mean of first − second, seed by seed, with Student's interval.

    Raises:
      ValueError: for fewer than two pairs, or numbers of seeds that differ.
    """
    if len(first) != len(second):
        raise ValueError(
            f"first and second must have a value for each seed, got {len(first)} and {len(second)}."
        )
    from scipy.stats import t  # it takes as long to import as a claim of arithmetic to measure

    pairs = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if len(pairs) < 2:
        raise ValueError(f"an interval needs two seeds or more, got {len(pairs)}.")
    reach = t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
    return Interval(*(float(pairs.mean() + way * reach) for way in (0, -1, 1)))


def share(hits: int, of: int) -> Interval:
    """Returns a share with Wilson's 95 % interval; NaN of none.

    Reference: Brown, Cai and DasGupta 2001, https://doi.org/10.1214/ss/1009213286.
    """
    if not of:
        return Interval(math.nan, math.nan, math.nan)
    from scipy.stats import binomtest

    found = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    return Interval(hits / of, float(found.low), float(found.high))
