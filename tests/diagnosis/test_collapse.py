import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convjax.diagnosis.collapse import CRASH, FLOOR, RISE, collapse_steps


def test_collapse_steps_of_one_rise_and_crash():
    assert collapse_steps([0.0, 0.1, 0.6, 0.5, 0.39, 0.3, 0.1]) == [4]


def test_collapse_steps_of_two_waves():
    assert collapse_steps([0.0, 0.6, 0.2, 0.15, 0.3, 0.1]) == [2, 5]


def test_collapse_steps_needs_a_rise_before_a_fall():
    assert collapse_steps([0.6, 0.3, 0.1, 0.05]) == []


def test_collapse_steps_ignores_noise_near_zero():
    assert collapse_steps([0.0, 0.009, 0.0, 0.008, 0.0]) == []


def test_collapse_steps_of_a_smooth_training():
    assert collapse_steps(np.linspace(0.2, 0.26, 50)) == []
    assert collapse_steps([]) == []


@given(st.lists(st.floats(0, 1), max_size=60))
def test_collapse_steps_are_falls_after_rises(share):
    # Since the last crash there is a peak of RISE times a trough before it, and the crash is CRASH
    # of that peak: the definition, independently of the search.
    previous = 0
    for step in collapse_steps(share):
        window = np.maximum(share[previous : step + 1], FLOOR)
        assert any(
            window[-1] <= CRASH * window[i] and window[i] >= RISE * window[:i].min()
            for i in range(1, len(window))
        )
        previous = step


@given(st.integers(0, 6), st.floats(0.1, 1), st.integers(1, 5))
def test_collapse_steps_counts_waves(waves, height, length):
    up = np.linspace(0, height, length + 1)
    share = np.concatenate([np.zeros(1), *([up, up[::-1]] * waves)])
    assert len(collapse_steps(share)) == waves


def test_collapse_steps_ignores_a_wobble_near_the_floor():
    assert collapse_steps([0, 0.016, 0.0099, 0.016, 0.0099]) == []
