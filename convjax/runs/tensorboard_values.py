"""The histograms of a record in event files, under their tags."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from convjax.stats.record import Record

# Histograms between a step and the step of twice its number. A histogram takes as much space as
# twenty scalars. TensorBoard loads at most 500 of a layer and draws about fifty of them. With 32
# per doubling there are 500 at half a million steps, most of them at the beginning, where
# most happens. One of every n steps would either miss the beginning or grow with the length of the
# training.
HISTOGRAMS_PER_DOUBLING = 32

# The record has the number of values outside its bins, but not where they lie. They are drawn as
# one bin of this width at either end, in units of the activation.
OUTER_WIDTH = 1.0


def histograms(record: Record, row: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields, for each layer of a watched row, the tag and the fields of a HistogramProto.

    Underflow and overflow are the first and the last bin. The sums are those of all values, from
    mean and standard deviation.
    """
    edges = record.hist_edges
    edges = np.array([edges[0] - OUTER_WIDTH, *edges, edges[-1] + OUTER_WIDTH])
    values = record.values[row]
    for column, layer in enumerate(record.layers):
        under, over = record.under[row, column], record.over[row, column]
        counts = np.array([under, *record.hist[row, column], over])
        filled = np.flatnonzero(counts)
        # TensorBoard drops empty bins at both ends and takes these for the ends of the rest.
        low, high = edges[[filled[0], filled[-1] + 1]] if len(filled) else (0.0, 0.0)
        number, mean = float(values[column]), float(record.mean[row, column])
        squares = (number - 1) * float(record.std[row, column]) ** 2 + number * mean**2
        fields = {
            "min": low,
            "max": high,
            "num": float(counts.sum()),
            "sum": number * mean,
            "sum_squares": squares,
            "bucket_limit": edges[1:].tolist(),
            "bucket": counts.tolist(),
        }
        yield f"activations/{layer}/histogram", fields


def histograms_every(step: int) -> int:
    """Returns how many steps lie between histograms near a step: a power of two, from 1 on."""
    return 1 << max(0, step.bit_length() - HISTOGRAMS_PER_DOUBLING.bit_length())
