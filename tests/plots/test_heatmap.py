"""The counts that heatmaps draw."""

from dataclasses import replace

import numpy as np

from convjax.plots import heatmap
from tests.plots.drawn import make_record


def test_layer_counts_of_batches_of_two_sizes_have_one_scale():
    record = make_record(steps=4, layers=("a",), size=1000)
    # The last batch has a quarter of the values, in the same shares.
    hist, under, over = (np.stack([n[0]] * 4) * 4 for n in (record.hist, record.under, record.over))
    hist[3], under[3], over[3] = hist[3] // 4, under[3] // 4, over[3] // 4
    counted = np.array([[4000], [4000], [4000], [1000]])
    sizes = np.array([4000])
    record = replace(record, hist=hist, under=under, over=over, counted=counted, sizes=sizes)
    counts = heatmap.layer_counts(record, "a")
    np.testing.assert_array_equal(counts, hist[:3, 0][[0, 1, 2, 0]])
    np.testing.assert_allclose(heatmap.layer_counts(record, "a", 2)[1], hist[0, 0], rtol=1e-12)
    below, above = heatmap.outside_percent(record, "a")
    assert len(set(below)) == len(set(above)) == 1
    assert below[0] == 100 * under[0, 0] / 4000


def test_layer_counts_are_nan_where_all_values_of_a_small_batch_are():
    record = make_record(steps=2, layers=("a",))
    counted = np.array([[1000], [10]])
    fields = {name: getattr(record, name).copy() for name in ("hist", "under", "over")}
    for field in fields.values():
        field[1] = 0
    counts = heatmap.layer_counts(replace(record, counted=counted, **fields), "a")
    assert np.isnan(counts).all(1).tolist() == [False, True]


def test_layer_counts_of_equal_batches_are_those_per_step():
    record = make_record(steps=9, layers=("a",))
    merged = record.merged(4)
    wanted = merged.hist[:, 0] / merged.watched_count[:, None]
    np.testing.assert_array_equal(heatmap.layer_counts(merged, 0), wanted)
