"""Spans, and the reshaping and joining of traced arrays, by hand."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.analysis.affine import (
    PIXEL_SPAN,
    WHOLE_SPAN,
    AxisFactor,
    Span,
    TracedArray,
    UntraceableError,
    join,
    normalized_axis,
)

H, W = AxisFactor(8, "H"), AxisFactor(6, "W")
IMAGES = TracedArray(
    ((AxisFactor(2),), (H,), (W,), (AxisFactor(3),)), {"H": PIXEL_SPAN, "W": PIXEL_SPAN}
)


def conv(seen, axis, stride, first, last, size):
    return seen.resized(axis, size, stride, first, last)


def test_span_through_adds_layers():
    # 3×3 with stride 2 and padding 1, twice: 1 + 2 + 2·2 = 7 pixels, the first at −1 − 2·1.
    first = PIXEL_SPAN.through(2, -1, 1)
    assert first == (2, -1, 1)
    second = first.through(2, -1, 1)
    assert second == (4, -3, 3)
    assert (second.size, second.padding) == (7, 3)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), max_size=6),
    st.integers(0, 9),
)
def test_span_through_covers_the_precedents_of_a_chain(windows, cell):
    read, span = {cell}, PIXEL_SPAN
    for size, stride, dilation in reversed(windows):  # from the last layer back to the image
        taps = [dilation * tap for tap in range(size)]
        read = {index * stride + tap for index in read for tap in taps}
    for size, stride, dilation in windows:
        span = span.through(stride, 0, dilation * (size - 1))
    ends = span.stride * cell + span.low, span.stride * cell + span.high
    assert ends == (min(read), max(read))
    assert span.size == max(read) - min(read) + 1


def test_span_through_keeps_the_whole_image():
    assert WHOLE_SPAN.through(2, -1, 1) == WHOLE_SPAN
    assert WHOLE_SPAN.size == math.inf


def test_span_through_covers_the_phases_of_a_transposed_convolution():
    # Index i of the larger map lies between (i − 1)/2 and i/2: one pixel, whichever its phase.
    span = PIXEL_SPAN.through(Fraction(1, 2), Fraction(-1, 2), Fraction(0))
    assert span == (Fraction(1, 2), Fraction(-1, 2), 0)
    assert span.size == 1


def test_normalized_axis_is_canonical():
    assert normalized_axis(
        [AxisFactor(1), AxisFactor(2), AxisFactor(3), H, AxisFactor(1, "W"), AxisFactor(1)]
    ) == (
        AxisFactor(6),
        H,
        AxisFactor(1, "W"),
    )


def test_reshaped_inverts_a_flattening():
    flat = IMAGES.reshaped((2, 8 * 6 * 3))
    assert flat.axis_of("H") is None
    assert flat.reshaped((2, 8, 6, 3)) == IMAGES
    assert flat.reshaped((2, 8, 18)).axis_of("H") == 1


def test_reshaped_cuts_rows_into_blocks():
    # Space to depth: 8 rows are 4 blocks of 2, so that a block's index moves by two rows.
    blocks = IMAGES.reshaped((2, 4, 2, 6, 3))
    assert blocks.spans["H"] == Span(2, 0, 1)
    assert blocks.axis_of("H") == 1
    assert blocks.letters(2) == ""


def test_reshaped_joins_whole_axes():
    assert IMAGES.reshaped((16, 18)).axes == ((AxisFactor(2), H), (W, AxisFactor(3)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 3, 96), "an axis of 8 is cut into parts of 3"), ((3, 96), "joined to 3 across")],
)
def test_reshaped_rejects_uneven_parts(shape, message):
    with pytest.raises(UntraceableError, match=message):
        IMAGES.reshaped(shape)


def test_folded_merges_repeated_rows():
    twice = IMAGES.with_axes([(AxisFactor(2),), (H, AxisFactor(2)), (W,), (AxisFactor(3),)])
    folded = twice.folded()
    assert folded.axes[1] == (AxisFactor(16, "H"),)
    assert folded.spans["H"] == Span(Fraction(1, 2), Fraction(-1, 2), 0)
    assert twice.shape == folded.shape
    # Channels that were flattened with the columns look the same, and come apart again.
    flat = IMAGES.reshaped((2, 8, 18))
    assert flat.reshaped((2, 8, 6, 3)) == IMAGES


def test_broadcast_repeats_axes_of_size_one():
    row = IMAGES.resized(1, 1, 1, 3, 3).broadcast((2, 4, 6, 3))
    assert row.shape == (2, 4, 6, 3)
    assert row.letters(1) == ""
    assert IMAGES.without([0, 1, 2, 3]).broadcast((5, 4)).shape == (5, 4)


@pytest.mark.parametrize("turned", [False, True])
def test_join_is_commutative(turned):
    few, many = conv(IMAGES, 1, 2, 0, 0, 4), conv(IMAGES, 1, 2, -1, 1, 4)
    both = [many, few] if turned else [few, many]
    assert join(both) == join([few, many])


def test_without_covers_all_rows():
    means = IMAGES.without([1])
    assert means.spans == {"H": WHOLE_SPAN, "W": PIXEL_SPAN}
    assert means.shape == (2, 6, 3)


def test_without_keeps_the_span_of_a_single_row():
    row = IMAGES.resized(1, 1, 1, 3, 3)
    assert row.without([1]).spans["H"] == Span(1, 3, 3)


def test_join_is_the_union_of_spans():
    small, large = conv(IMAGES, 1, 2, 0, 0, 4), conv(IMAGES, 1, 2, -1, 1, 4)
    assert join([small, large]).spans["H"] == Span(2, -1, 1)
    # A gate from a mean over the map sees everything, and so does what it multiplies.
    gate = IMAGES.without([1, 2]).with_axes(
        [(AxisFactor(2),), (AxisFactor(4),), (AxisFactor(6),), (AxisFactor(3),)]
    )
    assert join([large, gate]).spans["H"] == WHOLE_SPAN
    assert join([gate, large]).axis_of("H") == 1


def test_join_rejects_spans_that_differ_in_stride():
    fast, slow = conv(IMAGES, 1, 2, 0, 0, 4), conv(IMAGES, 1, 1, 0, 0, 4)
    with pytest.raises(UntraceableError, match="strides of 2 and 1 pixels"):
        join([fast, slow])
    turned = TracedArray(
        (IMAGES.axes[0], (AxisFactor(8, "W"),), (AxisFactor(6, "H"),), IMAGES.axes[3]), IMAGES.spans
    )
    with pytest.raises(UntraceableError, match="another order"):
        join([IMAGES, turned])
    one = IMAGES.resized(1, 1, 1, 3, 3).with_axes(
        [(AxisFactor(2),), (AxisFactor(8),), (W,), (AxisFactor(3),)]
    )
    with pytest.raises(UntraceableError, match="depends on one place"):
        join([IMAGES, one])


def test_resized_rejects_rows_that_share_an_axis():
    with pytest.raises(UntraceableError, match="share an axis"):
        IMAGES.reshaped((2, 48, 3)).resized(1, 24, 2, 0, 0)
