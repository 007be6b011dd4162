"""A record built block by block, against the record of all steps at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.stats.block_builder import BlockBuilder
from convjax.stats.merging import row_span, sum_of_rows
from convjax.stats.record_builder import concatenate
from tests.helpers import make_record, without_layers


def built(whole, rows, length, pairs):
    """The builder of all complete blocks, and the record of the rest."""
    builder = BlockBuilder(rows)
    end = len(whole.first) // length * length
    for start in range(0, end, length):
        builder.add(whole.between(start, start + length))
        for _ in range(pairs):
            builder.merge_pair()
        parts = sum(len(part.first) for part in builder._parts)
        assert parts <= 2 * rows + length * (2 + start.bit_length())
    return builder, whole.between(end, whole.steps) if end < whole.steps else None


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 150),
    rows=st.sampled_from([1, 3, 4, 16, 200]),
    length=st.sampled_from([1, 4, 16]),
    every=st.sampled_from([1, 3, 40]),
)
def test_block_builder_has_the_record_of_all_steps(steps, rows, length, every):
    whole = make_record(steps=steps, layers=2, every=every)
    builder, rest = built(whole, rows, length, 2)
    found, wanted = builder.record(rest), whole.merged(rows)
    for name in ("first", "watched", "watched_count", "hist", "under", "over", "active"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    for name in ("loss", "learning_rate", "mean", "std", "near_zero", "eval_loss"):
        # Merged in several goes, each of which rounds to float32.
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-5)
    for name in ("watched", "watched_count", "grad_hist"):
        of_found, of_wanted = getattr(found.parameters, name), getattr(wanted.parameters, name)
        np.testing.assert_array_equal(of_found, of_wanted)


def test_block_builder_merges_pairs_by_hand():
    # Five blocks of two steps. Ten steps in at most three rows: rows of four steps, blocks of
    # eight. 2 2 2 2 2 → 4 2 2 2 → 4 4 2 → 8 2.
    whole, builder = make_record(steps=10, layers=1), BlockBuilder(3)
    for start in range(0, 10, 2):
        builder.add(whole.between(start, start + 2))
    lengths = []
    while builder.merge_pair():
        lengths.append([part.steps for part in builder._parts])
    assert lengths == [[4, 2, 2, 2], [4, 4, 2], [8, 2]]
    assert builder._parts[0].counts.tolist() == [4, 4]
    assert not builder.merge_pair()
    assert builder.record().counts.tolist() == [4, 4, 2]


def test_block_builder_keeps_rows_that_are_not_too_many():
    builder, _ = built(make_record(steps=64, layers=1), 64, 4, 9)
    assert len(builder._parts) == 16
    assert builder.record().counts.tolist() == [1] * 64


def test_block_builder_takes_blocks_without_statistics():
    whole = make_record(steps=8, layers=1)
    builder = BlockBuilder(2)
    for block in (without_layers(whole), whole):
        builder.add(block)
    while builder.merge_pair():
        pass
    assert builder.record().watched_count.tolist() == [8]


def test_block_builder_needs_a_step():
    with pytest.raises(ValueError, match="at least one record"):
        BlockBuilder(4).record()


@given(st.integers(0, 10**7), st.integers(1, 2000))
def test_row_span_is_the_smallest_power_of_two(steps, rows):
    span = row_span(steps, rows)
    assert span.bit_count() == 1
    assert -(-steps // span) <= rows
    assert span == 1 or -(-steps // (span // 2)) > rows


@given(st.data())
def test_sum_of_rows_equals_reduceat(data):
    rows = data.draw(st.integers(1, 30))
    later = data.draw(st.sets(st.integers(1, rows - 1) if rows > 1 else st.nothing()))
    starts = np.array([0, *sorted(later)])
    counts = np.random.default_rng(rows).integers(0, 2**30, (rows, 2, 3)).astype(np.int32)
    found = sum_of_rows(counts, starts, np.int64)
    np.testing.assert_array_equal(found, np.add.reduceat(counts, starts, dtype=np.int64))
    assert found.dtype == np.int64


def test_concatenate_joins_batches_of_several_sizes():
    large, small = make_record(steps=2, layers=2), make_record(steps=1, layers=2, size=200)
    joined = concatenate([large, small, large])
    assert joined.sizes.tolist() == [1000, 1000]
    assert joined.counted[:, 1].tolist() == [1000, 1000, 200, 1000, 1000]
    assert not joined.nan().any()
    merged = joined.merged(2)
    assert merged.counted[:, 0].tolist() == [3200, 1000]
    assert not merged.nan().any()
    # By the values: means 0, 1, 0 and 0 of the first layer.
    assert merged.mean[0, 0] == np.float32(1000 / 3200)
    part = joined.between(0, 2)
    assert part.values.tolist() == large.values.tolist()
