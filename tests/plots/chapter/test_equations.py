"""The places with letters and the equations, read back from the drawings."""

import numpy as np
import pytest

from convjax.ops import reference
from convjax.plots.chapter import equation_list, equation_places
from convjax.plots.chapter.equations import TINTS, equations
from tests.plots.chapter.reading import colors, overlapping, table, texts

pytest.importorskip("matplotlib")

IMAGE, KERNEL, BIAS = np.array([[3, 0, 1], [2, 1, 4], [0, 5, 6]]), np.array([[1, -1], [2, 3]]), 2


def of_hex(color):
    return [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_equations_by_hand():
    # P: 1·3 − 1·0 + 2·2 + 3·1 + 2, and so on.
    found = equations(IMAGE, KERNEL, BIAS)
    assert found.outputs.tolist() == [12, 15, 18, 27]
    assert found.outputs.tolist() == (reference.kernel_map(IMAGE, KERNEL) + BIAS).ravel().tolist()
    assert found.terms(0) == [(0, 0), (1, 1), (2, 3), (3, 4)]


def test_equation_places_shows_weight_and_pixel_of_each_product():
    figure = equation_places(IMAGE, KERNEL, BIAS)
    assert table(figure, "image") == [
        ["A\n3", "B\n0", "C\n1"],
        ["D\n2", "E\n1", "F\n4"],
        ["G\n0", "H\n5", "J\n6"],
    ]
    assert table(figure, "kernel") == [["α\n1", "β\n−1"], ["γ\n2", "δ\n3"]]
    assert table(figure, "outputs") == [["P\n12", "Q\n15"], ["R\n18", "S\n27"]]
    assert texts(figure, "bias") == ["b\n2"]
    assert table(figure, "place 1") == [["A", "αB", "βC"], ["D", "γE", "δF"], ["G", "H", "J"]]
    assert table(figure, "place 3") == [["A", "B", "C"], ["D", "αE", "βF"], ["G", "γH", "δJ"]]
    drawn = colors(figure, "place 3")
    np.testing.assert_allclose(drawn[1, 1:], [of_hex(TINTS[0]), of_hex(TINTS[1])])
    np.testing.assert_allclose(drawn[0], 1)
    np.testing.assert_allclose(colors(figure, "kernel").reshape(4, 3), [*map(of_hex, TINTS[:4])])
    assert overlapping(figure) == []


def test_equation_list_writes_out_the_equations():
    figure = equation_list(IMAGE, KERNEL, BIAS)
    assert texts(figure, "term 0") == ["α·A", "β·B", "γ·D", "δ·E"]
    assert texts(figure, "term 3") == ["α·E", "β·F", "γ·H", "δ·J"]
    assert texts(figure, "product 0") == ["1·3", "(−1)·0", "2·2", "3·1"]
    assert texts(figure, "output") == ["12", "15", "18", "27"]
    assert overlapping(figure) == []


@pytest.mark.parametrize("draw", [equation_places, equation_list])
@pytest.mark.parametrize(
    ("image", "kernel"),
    [(np.ones((3, 4)) * -12.345, np.ones((2, 3)) * -0.123), (np.ones((1, 9)), np.ones((1, 1)))],
)
def test_equation_drawings_of_other_shapes(draw, image, kernel):
    assert overlapping(draw(image, kernel, -0.5)) == []


@pytest.mark.parametrize(
    ("image", "kernel", "message"),
    [
        (np.ones((4, 4)), KERNEL, "image must have at most 12 numbers.*got 16"),
        (np.ones((3, 4)), np.ones((3, 3)), "kernel must have at most 6 numbers.*got 9"),
        (np.ones((3, 4)), np.ones((1, 1)), "the output must have at most 9 numbers.*got 12"),
        (np.ones((3, 4)), np.ones((4, 1)), "kernel is larger than the padded input"),
        (np.ones(9), KERNEL, "image must be numbers with two axes"),
    ],
)
def test_equations_rejects(image, kernel, message):
    with pytest.raises(ValueError, match=message):
        equations(image, kernel, 0)
