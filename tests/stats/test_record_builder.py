"""Building of records: from steps, joined, and with neighbouring steps merged into rows."""

from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.stats.activations import ActivationStats, activation_stats
from convjax.stats.bins import Bins, as_bins
from convjax.stats.record import Record
from convjax.stats.record_builder import RecordBuilder, concatenate, from_steps
from tests.helpers import make_record, without_histograms, without_layers
from tests.stats.record_kinds import KINDS, RECORD, assert_equal

kinds = pytest.mark.parametrize("record", KINDS.values(), ids=KINDS)


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
def test_merged_twice_is_merged_once(steps, every, more, rows):
    record = make_record(steps=steps, layers=2, every=every)
    once, twice = record.merged(rows), record.merged(rows + more).merged(rows)
    for field in ("first", "watched", "watched_count", "hist", "under", "over"):
        np.testing.assert_array_equal(getattr(once, field), getattr(twice, field))
    for field in ("loss", "learning_rate", "momentum", "mean", "std", "near_zero"):
        np.testing.assert_allclose(getattr(once, field), getattr(twice, field), rtol=1e-5)
    assert len(once.first) <= rows
    assert once.hist.sum() == record.hist.sum()


def test_merged_returns_a_short_record():
    record = make_record(steps=5, layers=1)
    assert record.merged(5) is record
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        record.merged(0)


def test_merged_keeps_a_loss_that_is_not_finite():
    record = make_record(steps=8, layers=1)
    record.loss[2] = np.nan
    assert np.isnan(record.merged(2).loss).tolist() == [True, False]


def test_merged_records_can_be_saved_joined_and_cut(tmp_path):
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
    with pytest.raises(ValueError, match=r"start must .* got 5, inside the row of steps 4 to 7"):
        joined.between(5, 10)


def test_concatenate_keeps_statistics_with_rows_of_other_spans():
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


def test_merged_without_statistics_or_histograms():
    assert without_layers(make_record(steps=9, layers=1)).merged(2).first.tolist() == [0, 8]
    merged = without_histograms(make_record(steps=8, layers=1)).merged(2)
    assert merged.mean.shape == (2, 1)
    assert len(merged.hist) == 0


def test_from_steps_has_layers_on_the_second_axis():
    def stats(layer):
        columns = {name: np.arange(4.0) + 10 * layer for name in ActivationStats._fields}
        hist = np.arange(160, dtype=np.int32).reshape(4, 40) + layer
        active = np.ones((4, 2 + layer), bool)
        return ActivationStats(**(columns | {"hist": hist, "active": active}))

    loss, rate, momentum = np.arange(10.0), np.arange(10.0) + 1, np.arange(10.0) + 2
    watched = np.arange(0, 10, 3)
    record = from_steps(["a", "b"], [6, 8], loss, rate, momentum, watched, [stats(0), stats(1)])
    assert record.layers == ("a", "b")
    assert record.sizes.tolist() == [6, 8]
    assert record.steps == 10
    assert record.mean.tolist() == [[0, 10], [1, 11], [2, 12], [3, 13]]
    assert record.hist.shape == (4, 2, 40)
    assert record.hist[1, 1, 0] == 41
    assert (record.channels.tolist(), record.active.tolist()) == ([2, 3], [[0b11111000]] * 4)
    assert (record.loss[1], record.learning_rate[1], record.momentum[1]) == (1, 2, 3)
    assert record.watched.tolist() == [0, 3, 6, 9]


def test_from_steps_without_histograms_or_layers():
    row = np.arange(2.0)
    stats = ActivationStats(row, row, row, row, None, None, None)
    bare = from_steps(["a", "b"], [6, 8], row, row, row, [0, 1], [stats, stats])
    assert bare.mean.tolist() == [[0, 0], [1, 1]]
    assert (bare.hist.shape, bare.under.shape, bare.over.shape) == ((0, 2, 40), (0, 2), (0, 2))
    none = from_steps([], [], row, row, row, [], [])
    assert (none.steps, none.layers, none.sizes.shape) == (2, (), (0,))
    assert (none.watched.shape, none.std.shape, none.hist.shape) == ((0,), (0, 0), (0, 0, 40))


@kinds
@given(cuts=st.lists(st.integers(0, 7), max_size=3).map(sorted))
def test_concatenate_joins_what_between_cut(record, cuts):
    bounds = [0, *cuts, 7]
    pieces = [record.between(first, last) for first, last in pairwise(bounds)]
    assert sum(piece.steps for piece in pieces) == 7
    assert_equal(concatenate(pieces), record)


def test_concatenate_shifts_the_watched_steps():
    # Two trainings of 4 and 7 steps, each watched from its own start.
    joined = concatenate([KINDS["every 3"].between(0, 4), KINDS["every 3"]])
    assert joined.steps == 11
    assert joined.watched.tolist() == [0, 3, 4, 7, 10]
    assert joined.mean[:, 0].tolist() == [0, 3, 0, 3, 6]
    assert joined.loss.tolist() == [*RECORD.loss[:4], *RECORD.loss]


def test_concatenate_needs_a_record():
    with pytest.raises(ValueError, match="at least one record, got none"):
        concatenate([])


@pytest.mark.parametrize("other", [KINDS["no histograms"], make_record(steps=2, layers=2)])
def test_concatenate_rejects_records_of_different_trainings(other):
    with pytest.raises(ValueError, match="records must be of one training: the same layers"):
        concatenate([RECORD, other])


def test_concatenate_joins_steps_with_and_without_statistics():
    plain = without_layers(RECORD)
    joined = concatenate([plain, RECORD, plain])
    assert (joined.layers, joined.steps) == (RECORD.layers, 21)
    assert joined.watched.tolist() == list(range(7, 14))
    np.testing.assert_array_equal(joined.loss, np.tile(RECORD.loss, 3))
    np.testing.assert_array_equal(joined.hist, RECORD.hist)


def test_concatenate_rejects_other_bins():
    other = replace(RECORD, hist_edges=as_bins("symmetric").edges)
    message = r"same hist_edges, got 40 bins from -5 to 5 after 40 bins from 0 to 10\. Train"
    with pytest.raises(ValueError, match=message):
        concatenate([RECORD, other])
    with pytest.raises(ValueError, match=r"same near_zero_threshold, got 0\.1 after 0\.05"):
        concatenate([RECORD, replace(RECORD, near_zero_threshold=0.1)])
    # Steps without layers have no histograms, whatever the edges.
    joined = concatenate([without_layers(RECORD), other, without_layers(RECORD)])
    np.testing.assert_array_equal(joined.hist_edges, other.hist_edges)


def test_record_builder_rejects_other_bins():
    builder = RecordBuilder(8)
    builder.add(without_layers(RECORD))
    builder.add(RECORD)
    with pytest.raises(ValueError, match="records must have the same hist_edges"):
        builder.add(replace(RECORD, hist_edges=as_bins(Bins(0.0, 1.0, 40)).edges))
    assert builder.record().steps == 14
