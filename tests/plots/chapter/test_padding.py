"""Drawings of padding and stride: the cells under the kernel are the precedents."""

import numpy as np
import pytest

from convjax.analysis._precedents import Windows, output_shape, precedents
from convjax.ops.geometry import pair, resolve_padding
from convjax.plots.chapter import windows_on_grid
from convjax.plots.chapter.padding import PAD, PIXEL, SEEN, SEEN_PAD, first_cells
from tests.plots.chapter.reading import colors, extent, overlapping, texts

pytest.importorskip("matplotlib")

SETTINGS = {
    "stride 1": ((5, 5), Windows(3, 1, 1)),
    "stride 2": ((5, 5), Windows(3, 2, 1)),
    "even": ((5, 5), Windows(4, 1, 2)),
    "no padding": ((4, 3), Windows(2)),
    "uneven": ((6, 5), Windows((3, 2), (2, 1), ((0, 2), (1, 0)))),
    "dilation": ((5, 5), Windows(2, 1, 1, 3)),
    "one cell": ((3, 3), Windows(3)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_windows_on_grid_draws_the_precedents_under_the_kernel(name):
    size, windows = SETTINGS[name]
    figure = windows_on_grid(size, windows)
    (top, _), (left, _) = resolve_padding(
        windows.padding,
        size=size,
        kernel_size=pair("k", windows.kernel_size, minimum=1),
        stride=pair("s", windows.stride, minimum=1),
        dilation=pair("d", windows.dilation, minimum=1),
    )
    cells = first_cells(output_shape(size, windows))
    for i, cell in enumerate(cells):
        drawn = colors(figure, f"input {i}")
        inside = drawn[top : top + size[0], left : left + size[1]]
        seen = (inside == SEEN).all(-1)
        expected = precedents(cell, size, windows)
        assert set(zip(*np.nonzero(seen), strict=True)) == {p.cell for p in expected}
        assert ((inside == PIXEL).all(-1) == ~seen).all()
        around = np.ones(drawn.shape[:2], bool)
        around[top : top + size[0], left : left + size[1]] = False
        taps = np.prod(pair("k", windows.kernel_size, minimum=1))
        assert (drawn == SEEN_PAD).all(-1).sum() == taps - len(expected)
        assert ((drawn == SEEN_PAD).all(-1) | (drawn == PAD).all(-1))[around].all()
        output = (colors(figure, f"output {i}") == SEEN).all(-1)
        assert output.shape == output_shape(size, windows)
        assert np.argwhere(output).tolist() == [list(cell)]
        assert texts(figure, "products")[i] == f"{len(expected)} of {taps} products on pixels"
    assert texts(figure, "head") == [f"output cell ({r}, {c})" for r, c in cells]
    assert overlapping(figure) == []


def test_windows_on_grid_of_the_chapter_by_hand():
    assert texts(windows_on_grid(*SETTINGS["even"]), "title") == [
        "4×4 kernel, padding 2, stride 1: 5×5 → 6×6,   (5 + 2·2 − 4) // 1 + 1 = 6"
    ]
    figure = windows_on_grid(*SETTINGS["stride 2"])
    assert texts(figure, "products") == [
        f"{count} of 9 products on pixels" for count in (4, 6, 6, 4)
    ]
    # Two cells to the right: columns 1, 2 and 3 of the image.
    assert np.nonzero((colors(figure, "input 1") == SEEN).all(-1).any(0))[0].tolist() == [2, 3, 4]


def test_windows_on_grid_frames_the_kernel():
    figure = windows_on_grid(*SETTINGS["stride 1"])
    (axes,) = figure.axes
    (frame,) = (patch for patch in axes.patches if patch.get_gid() == "kernel 3")
    left, right, bottom, _ = extent(figure, "input 3")
    side = (right - left) / 7
    # The last place is the lower right corner of the padded input.
    assert frame.get_x() + frame.get_width() == pytest.approx(right)
    assert frame.get_y() + frame.get_height() == pytest.approx(bottom)
    assert frame.get_width() == pytest.approx(3 * side)


def test_windows_on_grid_of_chosen_cells():
    figure = windows_on_grid((5, 5), Windows(3), [(-1, -1), (1, 2)])
    assert texts(figure, "head") == ["output cell (2, 2)", "output cell (1, 2)"]
    # The formula is left out if the axes differ.
    assert "//" not in texts(windows_on_grid(*SETTINGS["uneven"]), "title")[0]


def test_windows_on_grid_rejects():
    with pytest.raises(IndexError, match="cell must be in the map of 3×3"):
        windows_on_grid((5, 5), Windows(3), [(3, 0)])
    with pytest.raises(ValueError, match="cells must hold at least one output cell"):
        windows_on_grid((5, 5), Windows(3), [])
    with pytest.raises(ValueError, match=r"size must be at most 14×14 .*got 16×15"):
        windows_on_grid((14, 13), Windows(3, 1, 1))
    with pytest.raises(ValueError, match="kernel is larger than the padded input"):
        windows_on_grid((2, 2), Windows(3))
