"""A kernel at one place and on the grid, read back from the drawings."""

import numpy as np
import pytest

from convjax.data import mnist5k_unsplit
from convjax.ops import reference
from convjax.plots.chapter import kernel_at_place, kernel_on_grid
from convjax.plots.chapter.grids import number
from tests.plots.chapter.reading import colors, cut_off, extent, overlapping, table, texts

pytest.importorskip("matplotlib")

TOP_EDGE = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
IMAGE = np.random.default_rng(0).integers(0, 256, (10, 12))


@pytest.fixture(scope="module")
def three():
    return mnist5k_unsplit().images[1502, :, :, 0]  # uint8, as stored


@pytest.mark.parametrize(("place", "total"), [((1, 1), "0"), ((5, 7), "762"), ((8, 18), "−29")])
def test_kernel_at_place_of_the_chapter(three, place, total):
    figure = kernel_at_place(three, *place, TOP_EDGE)
    row, column = place
    window = three[row - 1 : row + 2, column - 1 : column + 2].astype(int)
    assert texts(figure, "sum") == [total]
    assert table(figure, "pixels") == [[str(v) for v in line] for line in window]
    assert table(figure, "kernel") == [["−1"] * 3, ["0"] * 3, ["1"] * 3]
    assert table(figure, "products") == [[number(v) for v in line] for line in window * TOP_EDGE]
    assert texts(figure, "terms")[0].endswith(f" = {total}")
    assert overlapping(figure) == []


def test_kernel_at_place_writes_out_the_sum():
    image = np.zeros((3, 3))
    image[0, 0], image[2, 2] = 7, 9
    figure = kernel_at_place(image, 1, 1, TOP_EDGE)
    assert texts(figure, "terms") == ["(−7) + 9 = 2"]
    many = kernel_at_place(np.full((5, 5), 255), 2, 2, np.full((5, 5), -0.123))
    assert texts(many, "terms") == ["25 products are not 0"]
    for drawn in (figure, many):
        assert overlapping(drawn) == []


def test_kernel_at_place_frames_the_window():
    figure = kernel_at_place(IMAGE, 4, 9, np.ones((3, 3)))
    left, right, _, top = extent(figure, "image")
    side = (right - left) / 12
    frame = figure.axes[0].patches[1]  # after the border of the image
    assert frame.get_xy() == pytest.approx((left + 8 * side, top + 3 * side))
    assert (frame.get_width(), frame.get_height()) == pytest.approx((3 * side, 3 * side))
    np.testing.assert_allclose(colors(figure, "pixels")[..., 1], 1 - IMAGE[3:6, 8:11] / 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE, 0, 5, TOP_EDGE), r"inside the 10×12 image, got \(0, 5\)"),
        ((IMAGE, 5, 5, np.ones((6, 6))), "kernel must be at most 5×5.*got 6×6"),
        ((IMAGE, 5, 5, np.ones(3)), r"kernel must be numbers with two axes.*\(3,\)"),
        ((IMAGE - 1.0 * 300, 5, 5, TOP_EDGE), "image must hold pixels from 0 to 255"),
    ],
)
def test_kernel_at_place_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        kernel_at_place(*arguments)


def test_kernel_on_grid_draws_the_map_at_the_centres(three):
    figure = kernel_on_grid(three, TOP_EDGE, ((5, 7), (1, 1)))
    left, right, _ = figure.axes
    (image,) = left.images
    np.testing.assert_array_equal(image.get_array(), three)
    assert image.get_clim() == (0, 255)
    (dots,) = left.lines
    centres = {(y, x) for x, y in zip(*dots.get_data(), strict=True)}
    assert centres == {(i, j) for i in range(1, 27) for j in range(1, 27)}
    (found,) = right.images
    expected = reference.kernel_map(three.astype(int), TOP_EDGE)
    np.testing.assert_array_equal(found.get_array(), expected)
    assert found.get_extent() == [0.5, 26.5, 26.5, 0.5]
    assert found.get_clim() == (-np.abs(expected).max(), np.abs(expected).max())
    assert left.get_xlim() == right.get_xlim() == (-0.5, 27.5)
    assert left.get_ylim() == right.get_ylim() == (27.5, -0.5)
    assert "26×26" in right.get_title()
    assert [(text.get_text(), text.xy) for text in right.texts] == [("762", (7, 5)), ("0", (1, 1))]
    # The window on the image, and the cell on the map.
    assert left.patches[0].get_bbox().bounds == (5.5, 3.5, 3, 3)
    assert right.patches[0].get_bbox().bounds == (6.5, 4.5, 1, 1)
    assert cut_off(figure) == []


def test_kernel_on_grid_of_an_even_kernel_has_one_centre_less():
    figure = kernel_on_grid(IMAGE, np.ones((2, 2)))
    (dots,) = figure.axes[0].lines
    assert (min(dots.get_xdata()), max(dots.get_xdata())) == (1, 11)
    assert figure.axes[1].images[0].get_array().shape == (9, 11)


def test_kernel_on_grid_keeps_numbers_inside():
    corners = ((1, 1), (1, 26), (26, 1), (26, 26))
    figure = kernel_on_grid(np.full((28, 28), 255), np.ones((3, 3)), corners)
    figure.draw_without_rendering()
    frame = figure.axes[1].get_window_extent()
    for text in figure.axes[1].texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_kernel_on_grid_rejects():
    with pytest.raises(ValueError, match="kernel is larger than the padded input"):
        kernel_on_grid(IMAGE, np.ones((11, 3)))
    with pytest.raises(ValueError, match=r"inside the 10×12 image, got \(9, 9\)"):
        kernel_on_grid(IMAGE, TOP_EDGE, ((9, 9),))
