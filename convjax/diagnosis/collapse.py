"""Collapses of a layer's active units: the chapter's picture of bad training, as a count."""

import numpy as np
import numpy.typing as npt

# A crash takes a third of the active units, after a rise by half. Between two steps the share
# moves by a few per cent even in healthy trainings; waves of this size are visible as a restart in
# the colour dimension.
RISE = 1.5
CRASH = 1 / 1.5

# Shares below this count as this share, so that a rise from zero is not infinite.
FLOOR = 0.01

# A lower peak is not a rise: half a percentage point up and down is noise.
LEAST_PEAK = 0.05


def collapse_steps(share: npt.ArrayLike) -> list[int]:
    """Returns the watched steps, counted from 0, at which a share has risen and crashed.

    A crash is a fall below two thirds of the highest value since the last trough, if that was at
    least one and a half times the trough (a trough below 1 % counts as 1 %) and at least 5 %. The
    next crash needs another such rise first, so that one long fall counts once.

    Args:
      share: shares from 0 to 1 at successive steps, as `Record.active_share` returns them.

    Examples:
      >>> collapse_steps([0.0, 0.6, 0.2, 0.15, 0.3, 0.1])
      [2, 5]
    """
    found: list[int] = []
    values = np.asarray(share, np.float64)
    trough = peak = FLOOR
    risen = False
    for step, value in enumerate(values):
        value = max(float(value), FLOOR)
        if not risen:
            trough = min(trough, value) if step else value
            if value >= RISE * trough:
                risen, peak = True, value
        elif value > peak:
            peak = value
        elif value <= CRASH * peak and peak >= LEAST_PEAK:
            found.append(step)
            risen, trough = False, value
    return found
