"""The queries of a record: layers, shares, NaNs and ranges of steps."""

import dataclasses

import numpy as np
import pytest

from convjax.stats.bins import Bins, as_bins
from tests.helpers import make_record, without_histograms
from tests.stats.record_kinds import KINDS, RECORD


@pytest.mark.parametrize("name", ["no histograms", "no layers"])
def test_nan_needs_histograms(name):
    message = r"must hold histograms, got none\. Train with Watch\(histogram=True\)"
    with pytest.raises(ValueError, match=message):
        KINDS[name].nan()
    with pytest.raises(ValueError, match=message):
        KINDS[name].check_histograms()
    KINDS["every 9"].check_histograms()


def test_nan_counts_values_in_no_bin():
    assert RECORD.hist_edges.shape == (41,)
    assert RECORD.hist_edges[[0, 1, -1]].tolist() == [0, 0.25, 10]
    assert not RECORD.nan().any()
    hist = RECORD.hist.copy()
    hist[2, 1, 0] -= 5
    assert dataclasses.replace(RECORD, hist=hist).nan().tolist() == [
        [5 if (step, layer) == (2, 1) else 0 for layer in range(3)] for step in range(7)
    ]


def test_values_are_those_counted():
    counted = np.array([[1000, 1000], [250, 500], [1000, 1000]])
    hist = np.zeros((3, 2, 40), int)
    hist[..., 4] = counted // 2
    none = np.zeros((3, 2), int)
    record = make_record(steps=3, layers=2)
    record = dataclasses.replace(record, counted=counted, hist=hist, under=none, over=none)
    np.testing.assert_array_equal(record.values, counted)
    np.testing.assert_array_equal(record.nan(), counted // 2)
    np.testing.assert_array_equal(record.active_share(0), [0.5] * 3)
    np.testing.assert_array_equal(record.between(1, 2).values, counted[1:2])
    merged = record.merged(2)
    assert merged.values.tolist() == [[1250, 1500], [1000, 1000]]
    assert merged.active_share(1).tolist() == [0.5, 0.5]
    # The means of layer 0 are 0 and 1.
    assert merged.mean[0, 0] == np.float32(0.2)


def test_merged_evaluation_loss_is_the_mean_of_those_taken():
    eval_loss = np.float32([1, np.nan, 3, np.nan, np.nan, np.inf, 7])
    record = dataclasses.replace(RECORD, eval_loss=eval_loss)
    np.testing.assert_array_equal(record.merged(2).eval_loss, np.float32([2, np.inf]))
    np.testing.assert_array_equal(record.merged(4).eval_loss, np.float32([1, 3, np.inf, 7]))
    eval_loss[:4] = np.nan
    assert np.isnan(record.merged(2).eval_loss[0])


def test_layer_by_name_or_index():
    assert RECORD.layer("blocks.1.conv") == RECORD.layer(1) == RECORD.layer(-2) == 1
    message = (
        r"one of the record's \(blocks\.0\.conv, blocks\.1\.conv, blocks\.2\.conv\), got 'conv'"
    )
    with pytest.raises(KeyError, match=message):
        RECORD.layer("conv")
    for index in (3, -4):
        with pytest.raises(IndexError, match=rf"index of the record's 3 layers \(bl.*got {index}"):
            RECORD.layer(index)


def test_active_share_counts_above_a_level():
    record = make_record(steps=2, layers=1, size=100)
    hist = np.zeros_like(record.hist)
    hist[0, 0, 0], hist[0, 0, 1], hist[0, 0, 39] = 50, 20, 10
    record = dataclasses.replace(record, hist=hist, over=np.array([[5], [0]]))
    np.testing.assert_allclose(record.active_share(0), [0.35, 0.0])
    np.testing.assert_allclose(record.active_share(0, above=0), [0.85, 0.0])
    np.testing.assert_allclose(record.active_share(0, above=0.5), [0.15, 0.0])
    np.testing.assert_allclose(record.active_share(0, above=10), [0.05, 0.0])
    for between in (0.3, 11, -1):
        with pytest.raises(ValueError, match=r"above must be an edge .*\(0, 0\.25, … 10\)"):
            record.active_share(0, above=between)


def test_active_share_has_a_row_per_watched_step():
    record = make_record(steps=7, layers=2, every=3)
    # A quarter of the values in the fifth bin and an eighth over the last: exact.
    assert record.active_share("blocks.1.conv").tolist() == [0.375] * 3
    with pytest.raises(ValueError, match="record must hold histograms, got none"):
        without_histograms(record).active_share(0)


def test_active_share_uses_the_edges_of_the_record():
    # The same counts over -5..5: the fifth bin begins at -4, and only `over` lies above 0.25.
    record = dataclasses.replace(RECORD, hist_edges=as_bins("symmetric").edges)
    assert record.active_share(0)[0] == 0.125
    assert record.active_share(0, above=-4)[0] == 0.375
    assert record.has_edge(-5)
    assert not RECORD.has_edge(-5)
    narrow = dataclasses.replace(RECORD, hist_edges=Bins(-1e-9, 1e-9, 40).edges)
    assert [narrow.has_edge(level) for level in (0, 5e-11, 7e-11, 0.25)] == [
        True,
        True,
        False,
        False,
    ]


def test_between_by_hand():
    rows = RECORD.between(2, 4)
    assert rows.steps == 2
    assert rows.learning_rate.tolist() == RECORD.learning_rate[2:4].tolist()
    assert rows.hist.shape == (2, 3, 40)
    assert rows.layers == RECORD.layers
    assert rows.sizes.tolist() == RECORD.sizes.tolist()
    assert rows.watched.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("start", "stop", "steps", "watched"),
    [
        (0, 7, 7, [0, 3, 6]),
        (0, 3, 3, [0]),
        (1, 3, 2, []),
        (1, 7, 6, [2, 5]),
        (3, 100, 4, [0, 3]),
        (-5, -1, 4, [1]),
        (5, 2, 0, []),
    ],
)
def test_between_counts_watched_steps_from_start(start, stop, steps, watched):
    # Steps 0, 3 and 6 are watched; the means of layer 0 are the steps' numbers.
    rows = KINDS["every 3"].between(start, stop)
    assert (rows.steps, rows.watched.tolist()) == (steps, watched)
    first = slice(start, stop).indices(7)[0]
    assert rows.mean[:, 0].tolist() == [first + step for step in watched]
    assert rows.hist.shape == (len(watched), 3, 40)
