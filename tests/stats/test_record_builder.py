"""Records whose neighbouring steps are merged into rows."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.stats.activations import activation_stats
from convjax.stats.record import Record, smooth
from convjax.stats.record_builder import concatenate, from_steps
from tests.helpers import make_record, without_histograms, without_layers


def recorded(outputs, every=1, steps=None):
    """The record of a training whose two layers put out these values: (S, N) each."""
    stats = [
        jax.tree.map(lambda *steps: np.stack(steps), *map(activation_stats, x)) for x in outputs
    ]
    watched = np.arange(0, len(outputs[0]) * every, every)
    steps = np.arange(len(watched) * every if steps is None else steps, dtype=np.float32)
    sizes = [x[0].size for x in outputs]
    return from_steps("ab", sizes, 3 - steps / 100, steps / 10, steps / 20, watched, stats)


@pytest.mark.parametrize(
    ("rows", "span"), [(1, 16), (3, 8), (4, 4), (5, 4), (7, 2), (13, 1), (99, 1)]
)
def test_merged_statistics_are_those_of_all_values(rows, span):
    rng = np.random.default_rng(0)
    outputs = [
        rng.normal(1, 3, (13, 50)).astype(np.float32),
        rng.normal(-1, 1, (13, 20)).astype(np.float32),
    ]
    merged = recorded(outputs).merged(rows)
    groups = range(0, 13, span)
    assert len(merged.loss) == len(merged.watched) == len(groups) <= rows
    assert merged.steps == merged.counts.sum() == merged.watched_count.sum() == 13
    for row, first in enumerate(groups):
        assert merged.first[row] == merged.watched[row] == first
        step = np.arange(13)[first : first + span]
        assert merged.loss[row] == pytest.approx((3 - step / 100).mean(), rel=1e-6)
        assert merged.learning_rate[row] == pytest.approx((step / 10).mean(), rel=1e-6)
        for column, x in enumerate(outputs):
            values = x[first : first + span]
            # Rounding of float32 in both.
            assert merged.mean[row, column] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6)
            assert merged.std[row, column] == pytest.approx(values.std(ddof=1), rel=1e-5)
            assert merged.near_zero[row, column] == pytest.approx((values <= 0.05).mean(), rel=1e-6)
            wanted = np.histogram(values, 40, (0, 10))[0]
            np.testing.assert_array_equal(merged.hist[row, column], wanted)
            assert merged.under[row, column] == (values < 0).sum()
            assert merged.over[row, column] == (values > 10).sum()
    assert not merged.nan().any()


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 12), st.integers(1, 12))
def test_merging_in_two_goes_is_merging_once(steps, every, more, rows):
    record = make_record(steps=steps, layers=2, every=every)
    once, twice = record.merged(rows), record.merged(rows + more).merged(rows)
    for field in ("first", "watched", "watched_count", "hist", "under", "over"):
        np.testing.assert_array_equal(getattr(once, field), getattr(twice, field))
    for field in ("loss", "learning_rate", "momentum", "mean", "std", "near_zero"):
        np.testing.assert_allclose(getattr(once, field), getattr(twice, field), rtol=1e-5)
    assert len(once.first) <= rows
    assert once.hist.sum() == record.hist.sum()


def test_merging_leaves_what_is_short_enough():
    record = make_record(steps=5, layers=1)
    assert record.merged(5) is record
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        record.merged(0)


def test_a_loss_that_is_not_finite_stays_so():
    record = make_record(steps=8, layers=1)
    record.loss[2] = np.nan
    assert np.isnan(record.merged(2).loss).tolist() == [True, False]


def test_merged_records_are_saved_joined_and_cut(tmp_path):
    record = make_record(steps=10, layers=2, every=3).merged(3)
    record.save(tmp_path / "record.npz")
    loaded = Record.load(tmp_path / "record.npz")
    assert (loaded.steps, loaded.first.tolist()) == (10, [0, 4, 8])
    np.testing.assert_array_equal(loaded.watched_count, [2, 1, 1])
    joined = concatenate([record, make_record(steps=2, layers=2)])
    assert joined.first.tolist() == [0, 4, 8, 10, 11]
    assert joined.counts.tolist() == [4, 4, 2, 1, 1]
    part = joined.between(4, 11)
    assert (part.first.tolist(), part.watched.tolist(), part.steps) == ([0, 4, 6], [2, 5, 6], 7)
    with pytest.raises(ValueError, match=r"start must .* got 5, within that of steps 4 to 7"):
        joined.between(5, 10)


def test_statistics_stay_with_their_rows_where_spans_differ():
    joined = concatenate(
        [
            make_record(steps=10, layers=1).merged(3),
            make_record(steps=10, layers=1, every=3).merged(3),
        ]
    )
    merged = joined.merged(3)
    assert merged.first.tolist() == [0, 8, 18]
    assert merged.watched.tolist() == [0, 8, 19]
    assert merged.watched_count.tolist() == [8, 5, 1]
    assert merged.between(18, 20).watched.tolist() == [1]


def test_the_smoothed_loss_counts_every_step_of_a_row():
    flat = np.repeat([3.0, 1.0], 4)
    np.testing.assert_allclose(
        smooth(np.array([3.0, 1.0]), 0.9, counts=np.array([4, 4])), smooth(flat, 0.9)[[3, 7]]
    )


def test_without_statistics_and_histograms_records_merge_as_well():
    assert without_layers(make_record(steps=9, layers=1)).merged(2).first.tolist() == [0, 8]
    merged = without_histograms(make_record(steps=8, layers=1)).merged(2)
    assert merged.mean.shape == (2, 1)
    assert len(merged.hist) == 0
