"""What the page shows of the cell under the pointer: marks back to the image, and its sum."""

import numpy as np
import pytest

from convjax.analysis._precedents import Windows, trace_precedents
from convjax.cli.explorer_input import example
from tests.cli.explore.maps import assert_maps, assert_marks, expected_maps
from tests.cli.explore.reader import Page
from tests.experiments.browser import view


@pytest.fixture(scope="module")
def shown(browser, default):
    """The default page, loaded once: these tests only point at it."""
    view(browser)
    return Page(browser, default)


def test_explorer_loads_without_errors_or_network(shown):
    assert shown.browser.get_log("browser") == []
    fetched = "return performance.getEntriesByType('resource').length"
    assert shown.browser.execute_script(fetched) == 0
    explored = example()
    assert_maps(shown.state["maps"], expected_maps(explored.image, explored.layers))


@pytest.mark.parametrize("cell", [(2, 3, 3), (2, 0, 6), (1, 0, 0), (1, 13, 5), (0, 8, 4)])
def test_explorer_pointing_marks_the_precedents(shown, cell):
    explored = example()
    shown.point(*cell)
    state = shown.state
    assert_marks(state, explored.image, explored.layers, cell)
    if cell == (2, 3, 3):
        assert len(state["marks"][0]) == 49


def mixed(start, end, share):
    return np.asarray(start) + (np.asarray(end) - start) * share


GROUND, TEXT, MARK = (255, 255, 255), (27, 29, 33), (179, 74, 0)  # of base.html, light


def test_explorer_draws_marks(shown):
    shown.point(2, 3, 3)
    screen, image = shown.pixels(), example().image[0]
    (mask, _) = trace_precedents((3, 3), (28, 28), [Windows(3, stride=2, padding=1)] * 2)
    boxes, seen = shown.boxes(0), 0
    for row, column in np.ndindex(28, 28):
        x, y, width, height = boxes[row, column]
        colour = mixed(GROUND, TEXT, image[row, column] / image.max())
        if not mask[row, column]:
            colour = mixed(colour, GROUND, 0.5)
            seen += image[row, column] > 0
        centre = screen[int(y + height / 2), int(x + width / 2)]
        # Rounded twice, to whole numbers and under the half-transparent ground.
        assert abs(centre - colour).max() <= 2, (row, column)
    assert seen > 50
    # The line around the union, on each of its four sides and not one cell further out.
    for row, column, down, right in (
        (9, 12, -1, 0),
        (15, 12, 1, 0),
        (12, 9, 0, -1),
        (12, 15, 0, 1),
    ):
        x, y, width, height = boxes[row, column]
        for distance, is_line in ((0, True), (1, False)):
            edge_y = y + height / 2 + down * height * (0.5 + distance)
            edge_x = x + width / 2 + right * width * (0.5 + distance)
            part = screen[int(edge_y) - 1 : int(edge_y) + 1, int(edge_x) - 1 : int(edge_x) + 1]
            assert (abs(part - MARK).max(-1) <= 2).any() == is_line
    shown.point(0, 0, 0)
    again = shown.pixels()
    x, y, width, height = boxes[9, 9]
    assert (again[int(y + height / 2), int(x)] != MARK).any()


def test_explorer_shows_the_sum_of_a_cell(shown):
    explored = example()
    maps = expected_maps(explored.image, explored.layers)
    shown.point(2, 3, 3)
    value = maps[2][0, 3, 3]
    assert shown.text("#sum-title") == "conv 2, edges nearby, row 3, column 3"
    assert shown.text("#sum .value") == f"= {value:g}"
    kernel = np.asarray(explored.layers[1].kernel)[0]
    tables = shown.browser.execute_script(
        "return [...document.querySelectorAll('.products')].map((table) =>"
        "  [...table.rows].map((row) => [...row.cells].map((cell) =>"
        "    [...cell.children].map((part) => part.textContent.replace('× ', '')))))"
    )
    products = np.empty((2, 3, 3))
    for channel, table in enumerate(tables):
        for i, j in np.ndindex(3, 3):
            cell, weight = maps[1][channel, 5 + i, 5 + j], kernel[channel, i, j]
            shown_numbers = [float(part.replace("−", "-")) for part in table[i][j]]
            assert shown_numbers == [cell, weight, cell * weight]
            products[channel, i, j] = shown_numbers[2]
    assert products.sum() == value > 0
    assert f"18 products: {products[0].sum():g} + {products[1].sum():g} = {value:g}" in shown.text(
        "#sum .steps"
    )
    assert "ReLU" in shown.text("#sum .steps")
    shown.point(1, 0, 0)
    words = shown.browser.execute_script(
        "return [...document.querySelectorAll('.products td span:first-child')]"
        ".map((span) => span.textContent)"
    )
    assert words == ["padding"] * 4 + ["0", "0"] + ["padding"] + ["0", "0"]


def test_explorer_next_frame_follows_the_pointer(shown):
    shown.browser.execute_script("scrollTo(0, 0)")
    found = shown.browser.execute_async_script(
        """
        const done = arguments[0], canvas = document.querySelectorAll(".map")[2];
        const box = explorer.box(2, 6, 5), [clientX, clientY] = [box.x + 3, box.y + 3];
        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
        requestAnimationFrame(() => done([explorer.cell.row, explorer.cell.column]));
        """
    )
    assert found == [6, 5]
