import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.diagnosis.collapse import CRASH, FLOOR, RISE, active_share, collapse_steps
from tests.helpers import make_record, without_histograms


def test_active_share_counts_above_the_first_bin():
    record = make_record(steps=2, layers=1, size=100)
    hist = np.zeros_like(record.hist)
    hist[0, 0, 0], hist[0, 0, 1], hist[0, 0, 39] = 50, 20, 10
    record = type(record)(**{**vars(record), "hist": hist, "over": np.array([[5], [0]])})
    np.testing.assert_allclose(active_share(record, 0), [0.35, 0.0])
    np.testing.assert_allclose(active_share(record, 0, above=0), [0.85, 0.0])
    np.testing.assert_allclose(active_share(record, 0, above=0.5), [0.15, 0.0])
    np.testing.assert_allclose(active_share(record, 0, above=10), [0.05, 0.0])
    for between in (0.3, 11, -1):
        with pytest.raises(ValueError, match=r"above must be an edge .*\(0, 0\.25, … 10\)"):
            active_share(record, 0, above=between)


def test_active_share_has_a_row_per_watched_step():
    record = make_record(steps=7, layers=2, every=3)
    # A quarter of the values in the fifth bin and an eighth over the last: exact.
    assert active_share(record, "blocks.1.conv").tolist() == [0.375] * 3
    with pytest.raises(ValueError, match="record must hold histograms, got none"):
        active_share(without_histograms(record), 0)


def test_one_rise_and_crash():
    assert collapse_steps([0.0, 0.1, 0.6, 0.5, 0.39, 0.3, 0.1]) == [4]


def test_two_waves():
    assert collapse_steps([0.0, 0.6, 0.2, 0.15, 0.3, 0.1]) == [2, 5]


def test_a_fall_without_a_rise_is_no_crash():
    assert collapse_steps([0.6, 0.3, 0.1, 0.05]) == []


def test_noise_near_nothing_is_no_crash():
    assert collapse_steps([0.0, 0.009, 0.0, 0.008, 0.0]) == []


def test_smooth_runs_have_none():
    assert collapse_steps(np.linspace(0.2, 0.26, 50)) == []
    assert collapse_steps([]) == []


@given(st.lists(st.floats(0, 1), max_size=60))
def test_each_crash_is_a_fall_from_a_rise(share):
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
def test_as_many_crashes_as_waves(waves, height, length):
    up = np.linspace(0, height, length + 1)
    share = np.concatenate([np.zeros(1), *([up, up[::-1]] * waves)])
    assert len(collapse_steps(share)) == waves


def test_a_wobble_near_the_floor_is_no_crash():
    assert collapse_steps([0, 0.016, 0.0099, 0.016, 0.0099]) == []
