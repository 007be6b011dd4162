import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from convjax import conv2d
from convjax.analysis._precedents import (
    Precedent,
    Windows,
    output_shape,
    precedents,
    resolve_windows,
    trace_precedents,
)


def test_precedents_by_hand():
    # 3×3, stride 2, padding 1 on 5×5: cell (0, 1) has rows −1, 0, 1 and columns 1, 2, 3.
    found = precedents((0, 1), (5, 5), Windows(3, stride=2, padding=1))
    assert found == [
        Precedent((0, 1), (1, 0)),
        Precedent((0, 2), (1, 1)),
        Precedent((0, 3), (1, 2)),
        Precedent((1, 1), (2, 0)),
        Precedent((1, 2), (2, 1)),
        Precedent((1, 3), (2, 2)),
    ]


def test_precedents_count_negative_cells_from_the_end():
    windows = Windows((2, 3), stride=(1, 2))
    assert precedents((-1, -1), (4, 7), windows) == precedents((2, 2), (4, 7), windows)
    assert np.array_equal(
        trace_precedents((-1, -1), (4, 7), [windows])[0],
        trace_precedents((2, 2), (4, 7), [windows])[0],
    )


def test_trace_precedents_of_the_chapters_two_layers():
    image, first = trace_precedents((3, 3), (28, 28), [Windows(3, stride=2, padding=1)] * 2)
    assert first.shape == (14, 14)
    assert np.argwhere(first).min(0).tolist() == [5, 5]
    assert first.sum() == 9
    assert image.sum() == 49
    assert np.argwhere(image).min(0).tolist() == [9, 9]


# A pooling of 2×2 with stride 2 lies between the convolutions.
layers = st.lists(
    st.builds(
        Windows,
        st.tuples(st.integers(1, 3), st.integers(1, 3)),
        st.tuples(st.integers(1, 2), st.integers(1, 2)),
        st.one_of(
            st.integers(0, 2),
            st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
            st.just("same"),
        ),
        st.tuples(st.integers(1, 2), st.integers(1, 2)),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=30, deadline=None)
@given(layers=layers, cell=st.tuples(st.integers(0, 99), st.integers(0, 99)))
def test_trace_precedents_equals_the_support_of_the_gradient(layers, cell):
    size = (15, 17)

    def last(image):
        for windows in layers:
            # All positive, so that no two products cancel.
            ones = jnp.ones((*windows.kernel_size, 1, 1))
            image = conv2d(
                image,
                ones,
                stride=windows.stride,
                padding=windows.padding,
                dilation=windows.dilation,
                method="lax",
            )
        return image[0, :, :, 0]

    sizes = [size]
    for windows in layers:
        try:
            sizes.append(output_shape(sizes[-1], windows))
        except ValueError:  # a kernel larger than its padded input
            reject()
    row, column = cell[0] % sizes[-1][0], cell[1] % sizes[-1][1]

    @jax.jit  # one program for each example, and not one for each operation
    def gradient_of_cell(image, row, column):
        output, pull = jax.vjp(last, image)
        assert output.shape == sizes[-1]
        return pull(jnp.zeros(output.shape).at[row, column].set(1))[0]

    gradient = gradient_of_cell(jnp.ones((1, *size, 1)), row, column)
    masks = trace_precedents((row, column), size, layers)
    assert np.array_equal(masks[0], np.asarray(gradient[0, :, :, 0]) != 0)
    seen = np.zeros(sizes[-2], bool)
    for found in precedents((row, column), sizes[-2], layers[-1]):
        seen[found.cell] = True
    assert np.array_equal(masks[-1], seen)


@pytest.mark.parametrize("cell", [(3, 0), (-4, 0), (0, 5)])
def test_precedents_rejects_a_missing_cell(cell):
    with pytest.raises(IndexError, match=r"cell must be in the map of 3×5, got"):
        precedents(cell, (3, 5), Windows(1))
    with pytest.raises(IndexError, match=r"cell must be in the map of 3×5, got"):
        trace_precedents(cell, (3, 5), [Windows(1)])


def test_precedents_rejects_wrong_settings():
    with pytest.raises(TypeError, match="cell must be an int or a pair of ints"):
        precedents((0.5, 0), (3, 3), Windows(1))
    with pytest.raises(TypeError, match="size must be an int or a pair of ints"):
        trace_precedents((0, 0), (3.5, 3), [Windows(1)])
    with pytest.raises(TypeError, match=r"windows must be convjax\.Windows, got int: 3"):
        trace_precedents((0, 0), (3, 3), [3])
    assert precedents((0, 0), 3, Windows(3)) == precedents((0, 0), (3, 3), Windows(3))
    with pytest.raises(ValueError, match="stride must be at least 1"):
        precedents((0, 0), (3, 3), Windows(3, stride=0))
    with pytest.raises(ValueError, match="larger than the padded input"):
        trace_precedents((0, 0), (3, 3), [Windows(5)])


def test_resolve_windows_returns_pairs():
    # "same" on 6 rows with stride 2 and a span of 5: 3 outputs need 9 rows; the odd one after.
    found = resolve_windows(Windows(3, (2, 1), "same", (2, 1)), (6, 5))
    assert found == ((3, 3), (2, 1), ((1, 2), (1, 1)), (2, 1))
