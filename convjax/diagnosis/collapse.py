"""How often a layer's active units rise and crash: the picture of bad training, as a number."""

from typing import Any

import numpy as np
import numpy.typing as npt

from convjax.stats.record import Record

# A crash takes a third of the active units, after a rise by half. Between two steps the share
# moves by a few per cent even in healthy runs; waves of this size are what the eye sees as a
# restart in the colour dimension.
RISE = 1.5
CRASH = 1 / 1.5

# Shares below this are "none active": a rise from there by any factor starts here.
FLOOR = 0.01

# A peak below this is no rise worth the name: half a percentage point up and down is noise.
LEAST_PEAK = 0.05


def active_share(record: Record, layer: int | str, *, above: float = 0.25) -> npt.NDArray[Any]:
    """Returns the share of a layer's values above a level, shape (S,).

    The histogram's first bin, 0 to 0.25, and all below it make the bright bottom of the colour
    dimension; what is above is what the chapter calls non-zero activations.

    Args:
      above: an edge of the histogram's bins, in units of the activation.

    Raises:
      ValueError: if the record has no histograms, or no bin begins at `above`.
    """
    record.check_histograms()
    column, edges = record.layer(layer), record.hist_edges
    first = int(np.argmin(np.abs(edges - above)))
    if not np.isclose(edges[first], above):
        raise ValueError(
            f"above must be an edge of the histogram's bins ({edges[0]:g}, {edges[1]:g}, … "
            f"{edges[-1]:g}), got {above}."
        )
    active = record.hist[:, column, first:].sum(-1) + record.over[:, column]
    return active / record.values[:, column]


def collapse_steps(share: npt.ArrayLike) -> list[int]:
    """Returns the watched steps, counted from 0, at which a share has risen and crashed.

    A crash is a fall below two thirds of the highest value since the last trough, if that was at
    least one and a half times the trough (a trough below 1 % counts as 1 %) and at least 5 %. The
    next crash needs another such rise first, so that one long fall counts once.

    Args:
      share: shares from 0 to 1 at successive steps, as `active_share` gives them.
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
