"""The exponential average of a loss, corrected for its start."""

import numpy as np
from jaxtyping import Float, Int


def smooth(
    values: Float[np.ndarray, " R"],
    weight: float = 0.98,
    counts: Int[np.ndarray, " R"] | None = None,
) -> Float[np.ndarray, " R"]:
    """Returns the exponential average of all values so far, at each value.

    s ← weight·s + (1 − weight)·value from s = 0, divided by 1 − weight^count: the first average is
    the first value itself. A value that is not finite stands at its own place and is left out of
    the averages after it.

    Args:
      values: in the order of the steps.
      weight: of the average so far, from 0 to below 1.
      counts: number of steps that each value stands for; one by default.

    Raises:
      ValueError: if weight is not from 0 to below 1.

    References:
      fastai's `AvgSmoothLoss`, https://docs.fast.ai/learner.html#AvgSmoothLoss

    Examples:
      >>> import numpy as np
      >>> smooth(np.array([4.0, 4.0, 8.0]), 0.5).round(3).tolist()
      [4.0, 4.0, 6.286]
      >>> smooth(np.array([4.0, np.inf, 8.0]), 0.5).round(3).tolist()
      [4.0, inf, 7.2]
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight must be at least 0 and below 1, got {weight}.")
    smoothed = np.empty(len(values), np.float64)
    average = lost = 0.0
    done = 0
    for i, value in enumerate(map(float, values)):
        count = 1 if counts is None else int(counts[i])
        kept = weight**count
        finite = np.isfinite(value)
        average = kept * average + (1 - kept) * (value if finite else 0.0)
        lost = kept * lost + (1 - kept) * (not finite)  # the weights of what is left out
        done += count
        smoothed[i] = average / (1 - weight**done - lost) if finite else value
    return smoothed
