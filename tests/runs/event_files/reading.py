"""What stands in event files that TensorBoard has read."""

import numpy as np


def scalars(found, tag):
    """The steps and values of a tag."""
    events = found.Scalars(tag)
    return [event.step for event in events], [event.value for event in events]


def single(values):
    """The numbers as an event file holds them, in float32."""
    return np.float32(values).tolist()
