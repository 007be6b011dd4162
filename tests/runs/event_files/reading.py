"""Values of event files that TensorBoard has read."""

import numpy as np


def scalars(found, tag):
    """Returns the steps and values of a tag."""
    events = found.Scalars(tag)
    return [event.step for event in events], [event.value for event in events]


def single(values):
    """Returns the numbers in float32, as an event file has them."""
    return np.float32(values).tolist()
