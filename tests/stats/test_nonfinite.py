from dataclasses import replace

import numpy as np
import pytest

from convjax.stats.nonfinite import NonFiniteError, first_non_finite
from tests.helpers import make_record


def record(*, every=1, steps=6):
    """Losses 0 to 5 and finite layers."""
    made = make_record(steps=steps, layers=3, every=every)
    return replace(made, loss=np.arange(steps, dtype=np.float32))


def spoilt(made, step, row=None, column=None):
    loss = made.loss.copy()
    loss[step:] = np.nan
    mean = made.mean.copy()
    if row is not None:
        mean[row:, column:] = np.inf
    return replace(made, loss=loss, mean=mean)


def test_first_non_finite_of_a_finite_record():
    assert first_non_finite(record()) is None


def test_first_non_finite_names_the_first_layer():
    made = spoilt(record(), 3, row=3, column=1)
    found = first_non_finite(made, 100)
    assert (found.step, found.seen_at, found.layer) == (103, 103, made.layers[1])
    assert np.isnan(found.loss)
    assert str(found) == (
        f"the loss is nan at step 103; the first layer that is not finite there is {made.layers[1]}"
    )
    assert str(NonFiniteError(found)) == f"{found}."


def test_first_non_finite_with_finite_layers():
    made = record()
    made.loss[2] = np.inf
    found = first_non_finite(made)
    assert (found.step, found.loss, found.layer) == (2, np.inf, None)
    assert str(found).endswith("the outputs of all watched layers are finite there")


@pytest.mark.parametrize(("step", "seen_at"), [(1, 4), (4, 4)])
def test_first_non_finite_between_watched_steps(step, seen_at):
    made = spoilt(record(every=4), step, row=1, column=0)  # watched: 0 and 4
    found = first_non_finite(made)
    assert (found.step, found.seen_at, found.layer) == (step, seen_at, made.layers[0])
    assert ("the next watched" in str(found)) == (step != seen_at)


def test_first_non_finite_after_the_last_watched_step():
    found = first_non_finite(spoilt(record(every=4), 5))
    assert (found.step, found.seen_at, found.layer) == (5, None, None)
    assert "no layer was watched" in str(found)
