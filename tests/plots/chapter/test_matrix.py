"""The matrix and the links, read back from the drawings."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from convjax.ops import reference
from convjax.plots.chapter import equation_links, equation_matrix
from convjax.plots.chapter.equations import TINTS, WEIGHTS, ZERO
from tests.plots.chapter.reading import colors, overlapping, table, texts
from tests.plots.chapter.test_equations import BIAS, IMAGE, KERNEL

INDICES = reference.tied_indices((1, 1, 2, 2), (1, 3, 3))


def test_equation_matrix_has_tied_weights_and_grey_zeros():
    figure = equation_matrix(IMAGE, KERNEL, BIAS)
    expected = [["0" if i < 0 else WEIGHTS[i] for i in row] for row in INDICES]
    assert table(figure, "matrix") == expected
    assert expected[0] == ["α", "β", "0", "γ", "δ", "0", "0", "0", "0"]
    wanted = np.array([[ZERO if i < 0 else to_rgb(TINTS[i]) for i in row] for row in INDICES])
    np.testing.assert_allclose(colors(figure, "matrix"), wanted)
    assert overlapping(figure) == []


def test_equation_matrix_has_the_numbers_of_the_product():
    figure = equation_matrix(IMAGE, KERNEL, BIAS)
    read = [
        [int(cell[0].split("\n")[1]) for cell in table(figure, name)]
        for name in ("vector", "bias", "outputs")
    ]
    assert read[0] == IMAGE.ravel().tolist()
    legend = texts(figure, "legend")
    assert legend == [
        "α = 1",
        "β = −1",
        "γ = 2",
        "δ = 3",
        "b = 2",
        "always 0, not trained: 20 entries",
    ]
    values = {text[0]: int(text[4:].replace("−", "-")) for text in legend[:4]}
    matrix = np.array([[values.get(c, 0) for c in row] for row in table(figure, "matrix")])
    assert (matrix @ read[0] + read[1]).tolist() == read[2] == [12, 15, 18, 27]


def test_equation_links_has_a_link_per_product_in_the_colour_of_its_weight():
    figure = equation_links(IMAGE, KERNEL, BIAS)
    (axes,) = figure.axes
    nodes = {
        text.get_text(): text.get_position() for text in axes.texts if text.get_gid() == "node"
    }
    assert list(nodes) == [*"ABCDEFGHJ", *"PQRS"]
    links = {}
    for line in axes.lines:
        (x, to_x), (y, to_y) = line.get_data()
        (start,) = (name for name, at in nodes.items() if np.allclose(at, (x, y)))
        (end,) = (name for name, at in nodes.items() if np.allclose(at, (to_x, to_y)))
        links[start, end] = line
    assert len(links) == 36
    for i, j in np.ndindex(4, 9):
        line, weight = links["ABCDEFGHJ"[j], "PQRS"[i]], INDICES[i, j]
        if weight < 0:
            assert (line.get_gid(), line.get_linestyle()) == ("no link", ":")
        else:
            assert line.get_gid() == f"link {WEIGHTS[weight]}"
            assert line.get_color() == TINTS[weight]
    assert texts(figure, "pixel") == [str(v) for v in IMAGE.ravel()]
    assert texts(figure, "output") == [f"{v - 2} + b = {v}" for v in (12, 15, 18, 27)]
    assert "no link: 20 pairs" in texts(figure, "legend")
    assert overlapping(figure) == []


@pytest.mark.parametrize("draw", [equation_matrix, equation_links])
@pytest.mark.parametrize(
    ("image", "kernel"),
    [(np.ones((3, 4)) * -12.345, np.ones((2, 3)) * -0.123), (np.ones((1, 9)), np.ones((1, 1)))],
)
def test_matrix_drawings_of_other_shapes(draw, image, kernel):
    assert overlapping(draw(image, kernel, -0.5)) == []


@pytest.mark.parametrize("draw", [equation_matrix, equation_links])
def test_matrix_drawings_reject_too_many_pixels(draw):
    with pytest.raises(ValueError, match=r"image must have at most 12 numbers.*got 16"):
        draw(np.ones((4, 4)), KERNEL, 0)
