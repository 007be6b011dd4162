"""The table of pixels, read back from the drawing."""

import numpy as np
import pytest

from convjax.plots.chapter import pixel_table
from tests.plots.chapter.reading import colors, overlapping, table, texts

pytest.importorskip("matplotlib")

IMAGE = np.random.default_rng(0).integers(0, 256, (9, 7))


def test_pixel_table_has_the_part_with_its_rows_and_columns():
    figure = pixel_table(IMAGE, (2, 6), (1, 4))
    assert table(figure, "table") == [[str(v) for v in row] for row in IMAGE[2:6, 1:4]]
    assert texts(figure, "row") == ["2", "3", "4", "5"]
    assert texts(figure, "column") == ["1", "2", "3"]


def test_pixel_table_has_one_scale_of_shades():
    figure = pixel_table(IMAGE, (2, 6), (1, 4))
    expected = 1 - IMAGE[2:6, 1:4] / 255
    np.testing.assert_allclose(colors(figure, "table"), expected[..., None].repeat(3, -1))
    np.testing.assert_allclose(colors(figure, "image")[..., 0], 1 - IMAGE / 255)


def test_pixel_table_frames_the_part_on_the_image():
    (axes,) = pixel_table(IMAGE, (2, 6), (1, 4)).axes
    frame = axes.patches[1]  # after the border of the image
    (image,) = (image for image in axes.images if image.get_gid() == "image")
    left, right, _, top = image.get_extent()
    side = (right - left) / 7
    assert frame.get_xy() == pytest.approx((left + side, top + 2 * side))
    assert (frame.get_width(), frame.get_height()) == pytest.approx((3 * side, 4 * side))


@pytest.mark.parametrize("part", [((0, 9), (0, 7)), ((0, 1), (0, 1)), ((0, 9), (3, 4))])
def test_pixel_table_cuts_nothing_off(part):
    bright = np.full((9, 7), 255)
    assert overlapping(pixel_table(bright, *part)) == []


def test_pixel_table_of_the_whole_image():
    assert len(texts(pixel_table(IMAGE), "table")) == 63


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE, (2, 10)), r"rows must be .* within 0\.\.9.*got \(2, 10\)"),
        ((IMAGE, None, (4, 4)), r"columns must be .* within 0\.\.7.*got \(4, 4\)"),
        ((IMAGE - 300,), "pixels from 0 to 255, got -3.*before normalisation"),
        ((IMAGE[None],), "image must be numbers with two axes"),
    ],
)
def test_pixel_table_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        pixel_table(*arguments)
