"""A page of settings of which no two are alike, with every kind of layer and step."""

import numpy as np
import pytest

from convjax.explorer._page import page
from tests.cli.explore.maps import (
    ODD_IMAGE,
    assert_maps,
    assert_marks,
    change,
    expected_maps,
    odd_layers,
)
from tests.cli.explore.reader import Page
from tests.experiments.browser import view


@pytest.fixture
def odd(browser, tmp_path):
    (tmp_path / "odd.html").write_text(page("odd", ODD_IMAGE, odd_layers()))
    view(browser)
    return Page(browser, tmp_path / "odd.html")


def test_explorer_marks_with_odd_settings(odd):
    layers = odd_layers()
    state = odd.state
    assert_maps(state["maps"], expected_maps(ODD_IMAGE, layers))
    for index, found in enumerate(state["maps"]):
        height, width = np.shape(found)[1:]
        for row, column in {(0, 0), (height - 1, width - 1), (height // 2, width // 3)}:
            odd.point(index, row, column)
            assert_marks(odd.state, ODD_IMAGE, layers, (index, row, column))
    assert odd.browser.get_log("browser") == []


def test_explorer_shows_steps_and_pools(odd):
    maps = odd.state["maps"]
    odd.point(1, 4, 4)
    steps = odd.text("#sum .steps").splitlines()
    assert [step.split()[0] for step in steps] == ["12", "+", "ReLU,", "batch"]
    assert odd.text("#sum .value") == f"= {maps[1][0][4][4]!r}".replace("-", "−")
    odd.point(2, 2, 1)
    assert odd.text("#sum .steps").startswith("the largest of the window")
    winners = odd.browser.find_elements("css selector", ".products td.winner b")
    assert len(winners) == 1
    assert float(winners[0].text.replace("−", "-")) == pytest.approx(maps[2][0][2][1], rel=5e-3)


def test_explorer_changes_a_single_side(odd):
    odd.choose("#layer", 0)
    odd.type("padding, bottom", 4)
    odd.type("stride, rows", 2)
    wanted = change(odd_layers(), 0, padding=((0, 4), (1, 3)), stride=(2, 2))
    assert_maps(odd.state["maps"][:2], expected_maps(ODD_IMAGE, wanted[:1]))
    assert "rows: ⌊(12 + 0 + 4 − 5) / 2⌋ + 1 = 6" in odd.text("#formula")
    assert "columns: ⌊(14 + 1 + 3 − 4) / 2⌋ + 1 = 8" in odd.text("#formula")
    assert "unit has weights for a map of 6 × 5 cells" in odd.state["messages"][4]
