"""Cells, their colours and their numbers."""

import numpy as np
import pytest

from convjax.plots.chapter import grids
from tests.plots.chapter.reading import cut_off, overlapping

pytest.importorskip("matplotlib")


def test_cells_are_side_by_side():
    cells = grids.Cells(1.0, 2.0, 0.5, (2, 3))
    assert (cells.right, cells.bottom) == (2.5, 3.0)
    assert cells.middle == (1.75, 2.5)
    assert cells.centre(0, 0) == (1.25, 2.25)
    assert cells.centre(1, 2) == (2.25, 2.75)


def test_canvas_is_measured_in_inches_downwards():
    figure, axes = grids.canvas(4, 3)
    figure.draw_without_rendering()
    assert figure.get_size_inches().tolist() == [4, 3]
    # Pixels count upwards: an inch from the left and from the top.
    assert axes.transData.transform((1, 1)).tolist() == pytest.approx([100, 200])


@pytest.mark.parametrize(
    ("value", "text"),
    [(762, "762"), (-29, "−29"), (0, "0"), (-0.0, "0"), (0.12345, "0.123"), (-1.5, "−1.5")],
)
def test_number_of_a_cell(value, text):
    assert grids.number(value) == text


def test_inked_is_white_at_0_and_black_at_255():
    assert grids.inked([[0, 255]]).tolist() == [[[1, 1, 1], [0, 0, 0]]]


def test_signed_is_red_above_and_blue_below_zero():
    red, blue, zero, beyond = grids.signed([1, -1, 0, 5], 1)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert zero[0] == pytest.approx(zero[2], abs=0.01)
    assert beyond.tolist() == red.tolist()
    assert np.isfinite(grids.signed([0.0], 0)).all()


@pytest.mark.parametrize(
    ("color", "ink"),
    [((0, 0, 0), "white"), ((1, 1, 1), "black"), ((1, 1, 0, 1), "black"), ((0, 0, 1), "white")],
)
def test_readable_on_has_contrast(color, ink):
    assert grids.readable_on(np.array(color)) == ink


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2, 1)), r"two axes .*shape \(2, 2, 1\).*image\[:, :, 0\]"),
        (np.zeros((0, 2)), "none of them empty"),
        ([["a"]], "must be numbers"),
        ([[np.nan]], "finite numbers, got NaN"),
    ],
)
def test_two_axes_rejects(values, message):
    with pytest.raises(ValueError, match=message):
        grids.two_axes("image", values)


def test_two_axes_avoids_overflow_of_small_integers():
    assert grids.two_axes("kernel", np.int8([[100]])) * 100 == 10_000


def test_overlapping_and_cut_off_find_problems():
    figure, axes = grids.canvas(2, 1)
    grids.write(axes, 0.5, 0.5, "one")
    assert overlapping(figure) == []
    grids.write(axes, 0.55, 0.5, "two")
    grids.write(axes, 2.0, 0.2, "three")
    assert overlapping(figure) == [("one", "two"), ("three", "edge")]
    crowded = grids.new_figure(2, 2)
    crowded.set_layout_engine("none")
    for left in (0.2, 0.4, -0.2):
        crowded.add_axes((left, 0.2, 0.3, 0.3))
    assert len(cut_off(crowded)) == 3
