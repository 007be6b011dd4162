"""Confidence intervals of mean differences and of shares."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean difference, or a share, with its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool | None:
        """Whether the whole interval lies above 0; None if it contains 0 or is not finite."""
        decided = math.isfinite(self.mean) and not self.low <= 0 <= self.high
        return self.low > 0 if decided else None

    def __str__(self) -> str:
        return self.text(4)

    def text(self, digits: int) -> str:
        """Returns the mean and the ends with `digits` digits after the point."""
        mean, low, high = (f"{value:+.{digits}f}" for value in self)
        return f"{mean} (95 % from {low} to {high})"


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Returns the mean of first − second, seed by seed, with Student's interval.

    Args:
      first, second: one value for each seed.

    Raises:
      ValueError: for fewer than two pairs, or different numbers of seeds.
    """
    if len(first) != len(second):
        raise ValueError(
            "first and second must have a value for each seed, got "
            f"{len(first)} and {len(second)} values."
        )
    from scipy.stats import t  # its import takes as long as measuring a claim of arithmetic

    pairs = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if len(pairs) < 2:
        raise ValueError(f"first and second must have two seeds or more, got {len(pairs)}.")
    margin = t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
    return Interval(*(float(pairs.mean() + sign * margin) for sign in (0, -1, 1)))


def share(hits: int, of: int) -> Interval:
    """Returns the share hits/of with Wilson's 95 % interval, NaN where `of` is 0.

    References:
      Brown, Cai and DasGupta 2001, https://doi.org/10.1214/ss/1009213286.
    """
    if not of:
        return Interval(math.nan, math.nan, math.nan)
    from scipy.stats import binomtest

    found = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    return Interval(hits / of, float(found.low), float(found.high))
