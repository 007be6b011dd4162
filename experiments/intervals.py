"""Mean differences with their confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean difference with the ends of its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool | None:
        """Whether the whole interval lies above 0; None where it holds 0."""
        return None if self.low <= 0 <= self.high else self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.4f} (95 % from {self.low:+.4f} to {self.high:+.4f})"


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Returns the mean of first − second, seed by seed, with Student's interval.

    Raises:
      ValueError: for fewer than two pairs.
    """
    from scipy.stats import t  # it takes as long to import as a claim of arithmetic to measure

    pairs = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    if len(pairs) < 2:
        raise ValueError(f"an interval needs two seeds or more, got {len(pairs)}.")
    reach = t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
    return Interval(*(float(pairs.mean() + way * reach) for way in (0, -1, 1)))
