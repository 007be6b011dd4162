"""The loss in evaluation mode at every second step, so that short trainings have it."""

import pytest

from convjax.stats import _watched_program


@pytest.fixture(autouse=True)
def frequent_evaluation(monkeypatch):
    monkeypatch.setattr(_watched_program, "EVALUATION_STEPS", 2)
