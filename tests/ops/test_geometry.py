import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.ops import geometry

small = st.integers(1, 6)
sizes = st.integers(1, 40)


def places(size, kernel_size, stride, padding, dilation):
    """Returns the first pixels of all windows inside the padded input, by trying every pixel."""
    inside = range(size + sum(padding))
    return [
        start
        for start in inside
        if start % stride == 0
        and all(start + dilation * tap in inside for tap in range(kernel_size))
    ]


# --- output size -------------------------------------------------------------------------------


def test_output_size_values():
    assert geometry.output_size(5, 4, padding=2) == 6  # the guide's arbitrary padding
    assert geometry.output_size(7, 7) == 1
    assert geometry.output_size(7, 3, dilation=3) == 1
    assert geometry.output_size(28, 5, stride=2, padding=(2, 2)) == 14
    assert geometry.output_size(5, 2, stride=2, padding=(0, 1)) == 3
    # Padding 1, stride 2 and 3×3 halve the map, rounding up: the chapter's stride-2 layers.
    for h in range(1, 60):
        assert geometry.output_size(h, 3, stride=2, padding=1) == (h + 1) // 2


@given(sizes, small, small, st.tuples(st.integers(0, 5), st.integers(0, 5)), small)
def test_output_size_is_the_number_of_windows_that_fit(n, k, stride, padding, dilation):
    windows = places(n, k, stride, padding, dilation)
    arguments = {"stride": stride, "padding": padding, "dilation": dilation}
    if windows:
        assert geometry.output_size(n, k, **arguments) == len(windows)
    else:
        with pytest.raises(ValueError, match="the kernel is larger than the padded input"):
            geometry.output_size(n, k, **arguments)


def test_output_size_rejects_a_kernel_larger_than_the_input():
    message = (
        r"spans 7 pixels \(kernel_size 4, dilation 2\), the input has 6 \(3 \+ padding 1 \+ 2\)"
    )
    with pytest.raises(ValueError, match=message):
        geometry.output_size(3, 4, padding=(1, 2), dilation=2)


# --- padding -----------------------------------------------------------------------------------


def test_same_padding_values():
    assert geometry.same_padding(5, 3) == (1, 1)
    assert geometry.same_padding(5, 4) == (1, 2)  # the odd pixel comes after
    assert geometry.same_padding(6, 3, stride=2) == (0, 1)
    assert geometry.same_padding(5, 3, dilation=2) == (2, 2)
    assert geometry.same_padding(9, 1, stride=3) == (0, 0)


@given(sizes, small, small, small)
def test_same_padding_equals_lax(n, k, stride, dilation):
    span = dilation * (k - 1) + 1
    expected = jax.lax.padtype_to_pads((n,), (span,), (stride,), "SAME")
    padding = geometry.same_padding(n, k, stride=stride, dilation=dilation)
    assert [tuple(map(int, pads)) for pads in expected] == [padding]
    assert len(places(n, k, stride, padding, dilation)) == -(-n // stride)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (3, ((3, 3), (3, 3))),
        (np.int32(3), ((3, 3), (3, 3))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        ("valid", ((0, 0), (0, 0))),
        # Rows: 9 pixels of span in 10; columns: 2 outputs of stride 4 and a span of 2 in 7.
        ("same", ((4, 4), (0, 0))),
        ("Same", ((4, 4), (0, 0))),
    ],
)
def test_resolve_padding_accepts_every_form(padding, expected):
    found = geometry.resolve_padding(
        padding, size=(10, 7), kernel_size=(5, 2), stride=(1, 4), dilation=(2, 1)
    )
    assert found == expected


@pytest.mark.parametrize(
    ("padding", "error", "message"),
    [
        ("causal", ValueError, 'padding must be "same", "valid" or numbers, got \'causal\''),
        (-1, ValueError, "padding must be at least 0, got -1"),
        (((0, 1), (0, -1)), ValueError, r"padding \(left, right\) must be at least 0"),
        ((1, 2, 3), ValueError, r"padding must be an int or a pair .*got \(1, 2, 3\)"),
        (((1, 2),), ValueError, r"padding must be .* \(\(top, bottom\), \(left, right\)\), got"),
        ((1, (2, 3)), ValueError, r"padding must be an int, a pair .*got \(1, \(2, 3\)\)"),
        (((1, 2, 3), (1, 2)), ValueError, r"padding \(top, bottom\) must be an int or a pair"),
        (0.5, TypeError, "padding must be an int or a pair of ints .*got 0.5"),
        ((("1", 2), (3, 4)), TypeError, r"padding \(top, bottom\) must be .*ints"),
        (None, TypeError, "padding must be an int or a pair of ints .*got None"),
    ],
)
def test_resolve_padding_rejects_invalid_padding(padding, error, message):
    pairs = {"size": (9, 9), "kernel_size": (3, 3), "stride": (1, 1), "dilation": (1, 1)}
    with pytest.raises(error, match=message):
        geometry.resolve_padding(padding, **pairs)


# --- pairs -------------------------------------------------------------------------------------


def test_pair_accepts_ints_and_pairs():
    assert geometry.pair("stride", 2, minimum=1) == (2, 2)
    assert geometry.pair("stride", [2, 3], minimum=1) == (2, 3)
    height, _ = geometry.pair("stride", np.int64(2), minimum=1)
    assert type(height) is int


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((), ValueError, r"stride must be an int or a pair \(height, width\), got \(\)"),
        ((1, 2, 3), ValueError, r"pair \(height, width\), got \(1, 2, 3\)"),
        ((2, 0), ValueError, r"stride must be at least 1, got \(2, 0\)"),
        (2.0, TypeError, r"pair of ints \(height, width\), got 2.0"),
        ("12", TypeError, "pair of ints .*got '12'"),
    ],
)
def test_pair_rejects_invalid_values(value, error, message):
    with pytest.raises(error, match=message):
        geometry.pair("stride", value, minimum=1)


# --- cost --------------------------------------------------------------------------------------


def test_multiplications_of_the_chapter():
    # Third layer of the threes and sevens: 7×7 cells and 1168 − 16 weights without the biases.
    assert geometry.multiplications((7, 7), (3, 3, 8, 16)) == 56_448
    assert geometry.multiplications((14, 14), (8, 4, 3, 3)) == 56_448
    assert geometry.multiplications((2, 3), (1, 1, 1, 1)) == 6


@given(small, small, st.tuples(small, small), st.tuples(small, small))
def test_multiplications_equal_a_count(outputs, inputs, kernel, output):
    counted = 0
    for _ in np.ndindex((*output, outputs)):
        counted += inputs * kernel[0] * kernel[1]
    assert geometry.multiplications(output, (*kernel, inputs, outputs)) == counted


def test_dilated_size_values():
    # x..x..x
    assert geometry.dilated_size(3, 3) == 7
    assert geometry.dilated_size(4) == 4
    assert geometry.dilated_size(1, 9) == 1


@pytest.mark.parametrize("spacing", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_transposed_taps_of_an_uncropped_convolution_are_all(kernel, spacing):
    size, output = 4, 3 * spacing + kernel
    taps = geometry.transposed_taps(size, output, kernel, spacing=spacing, padding=kernel - 1)
    assert taps == size * kernel


def test_transposed_taps_equal_the_entries_of_the_scatter():
    """Each pixel adds the kernel to the output; a border of one cell is cropped."""
    size, kernel, spacing = 5, 3, 2
    uncropped = np.zeros(spacing * (size - 1) + kernel, int)
    for pixel in range(size):
        uncropped[spacing * pixel : spacing * pixel + kernel] += 1
    cropped = uncropped[1:-1]
    taps = geometry.transposed_taps(size, len(cropped), kernel, spacing=spacing, padding=1)
    assert taps == cropped.sum() == 13
