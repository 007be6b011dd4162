"""Drawing of the precedents of one cell, read back."""

import jax.numpy as jnp
import numpy as np
import pytest

import convjax
from convjax.analysis._precedents import Windows, trace_precedents
from convjax.chapter.chapter_data import LEFT_EDGE, TOP_EDGE, embedded_three
from convjax.plots.chapter import precedents_of_cell
from tests.plots.chapter.reading import extent, overlapping, table, texts

pytest.importorskip("matplotlib")

# conv1 of these with ones around pixel (1, 1) is a sum of up to nine pixels at stride 2.
IMAGE = np.arange(25).reshape(5, 5)
ONES = np.ones((3, 3), int)


def frame(figure, name):
    """Row, column, rows and columns of the frame in a map, in its cells."""
    (axes,) = figure.axes
    (patch,) = (patch for patch in axes.patches if patch.get_gid() == f"part of {name}")
    left, right, _, top = extent(figure, name)
    image = next(image for image in axes.images if image.get_gid() == name)
    side = (right - left) / image.get_array().shape[1]
    corner = (patch.get_y() - top) / side, (patch.get_x() - left) / side
    return [round(v) for v in (*corner, patch.get_height() / side, patch.get_width() / side)]


def test_precedents_of_cell_by_hand():
    figure = precedents_of_cell(IMAGE, [ONES, ONES], (0, 0))
    # Every cell of the 3×3 map is a sum of the pixels around (0, 0), (0, 2), ..., (4, 4). The first
    # cell of the second map is above its left border, so that four of these contribute.
    assert texts(figure, "count") == ["4×4 cells", "2×2 cells", "1 cell"]
    assert table(figure, "numbers of image")[3] == ["15", "16", "17", "18"]
    # 0 + 1 + 5 + 6; 1 + 2 + 3 + 6 + 7 + 8; 5 + 6 + 10 + 11 + 15 + 16; nine around 12
    assert table(figure, "numbers of output of conv1") == [["12", "27"], ["63", "108"]]
    assert table(figure, "numbers of output of conv2") == [["210"]]
    assert texts(figure, "sum") == ["sum 210"]
    assert frame(figure, "image") == [0, 0, 4, 4]
    assert frame(figure, "output of conv1") == [0, 0, 2, 2]
    assert frame(figure, "output of conv2") == [0, 0, 1, 1]


@pytest.mark.parametrize("cell", [(2, 3), (0, 0), (-1, -1), (5, 1)])
def test_precedents_of_cell_have_the_numbers_of_conv2d(cell):
    kernels = TOP_EDGE, LEFT_EDGE
    figure = precedents_of_cell(embedded_three(), kernels, cell)
    maps = [jnp.asarray(embedded_three(), jnp.float32)[None, ..., None]]
    for kernel in kernels:
        filters = jnp.asarray(kernel, jnp.float32)[..., None, None]
        maps.append(jnp.maximum(convjax.conv2d(maps[-1], filters, stride=2, padding=1), 0))
    masks = trace_precedents(cell, (28, 28), [Windows(3, 2, 1)] * 2)
    chosen = np.zeros((7, 7), bool)
    chosen[cell] = True
    names = ("image", "output of conv1", "output of conv2")
    for name, values, mask in zip(names, maps, [*masks, chosen], strict=True):
        drawn = np.array(table(figure, f"numbers of {name}"), float)
        np.testing.assert_array_equal(drawn.ravel(), np.asarray(values)[0, ..., 0][mask])
        row, column, rows, columns = frame(figure, name)
        framed = np.zeros_like(mask)
        framed[row : row + rows, column : column + columns] = True
        np.testing.assert_array_equal(framed, mask)
    assert overlapping(figure) == []


def test_immediate_precedents_are_one_map_and_one_kernel():
    figure = precedents_of_cell(embedded_three(), [TOP_EDGE, LEFT_EDGE], (2, 3), 1)
    assert texts(figure, "head") == ["output of conv1, 14×14", "output of conv2, 7×7"]
    assert table(figure, "kernel 2") == [["−1", "1", "0"]] * 3
    assert texts(figure, "kernel 1") == []
    assert texts(figure, "count") == ["3×3 cells", "1 cell"]
    # −75 + 63 + 0 + 0 − 66 + 478
    assert texts(figure, "sum") == ["sum 400"]
    assert overlapping(figure) == []


def test_precedents_of_cell_say_what_the_relu_removes():
    figure = precedents_of_cell(IMAGE, [-ONES], (1, 1))
    assert texts(figure, "sum") == ["sum −108, after the ReLU 0"]
    assert table(figure, "numbers of output of conv1") == [["0"]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((IMAGE, [], (0, 0)), ValueError, "kernels must hold at least one kernel, got none"),
        ((IMAGE, [ONES], (3, 0)), IndexError, "cell must be in the map of 3×3"),
        ((IMAGE, ONES, (0, 0)), ValueError, r"kernels\[0\] must be numbers with two axes"),
        (
            (IMAGE, [ONES, ONES[:1]], (0, 0)),
            ValueError,
            r"kernels\[1\] must have at least 2 rows and columns, got 1×3.* skips cells",
        ),
        ((IMAGE, [ONES], (0, 0), 2), ValueError, "generations must be at most .* 1, got 2"),
        ((IMAGE, [ONES], (0, 0), 0), ValueError, "generations must be at least 1, got 0"),
        (
            (np.zeros((40, 40)), [ONES] * 3, (2, 2)),
            ValueError,
            "kernels must lead back to at most 14 cells on a side, got 15",
        ),
    ],
)
def test_precedents_of_cell_reject(arguments, error, message):
    with pytest.raises(error, match=message):
        precedents_of_cell(*arguments)
