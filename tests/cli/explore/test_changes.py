"""Settings and weights that a reader changes, and those with which no map is possible."""

import numpy as np
from selenium.webdriver.common.keys import Keys

from convjax.cli.explorer_input import example
from tests.cli.explore.maps import assert_maps, assert_marks, change, expected_maps


def test_explorer_computes_changed_settings(fresh):
    explored = example()
    layers, image = explored.layers, explored.image
    fresh.choose("#layer", 0)
    for label, value in (("stride", 1), ("padding", 3), ("dilation", 2)):
        layers = change(layers, 0, **{label: value})
        fresh.type(label, value)
        maps = expected_maps(image, layers)
        assert_maps(fresh.state["maps"], maps)
        side, span = maps[1].shape[1], layers[0].dilation * 2 + 1
        padding, stride = layers[0].padding, layers[0].stride
        formula = f"⌊(28 + {padding} + {padding} − {span}) / {stride}⌋ + 1 = {side}"
        assert formula in fresh.text("#formula")
        assert formula in fresh.text("[aria-label='conv 1'].stage .formula")
    fresh.type("weight at row 2, column 0", -2.5)
    kernel = np.array(layers[0].kernel, float)
    kernel[0, 0, 2, 0] = -2.5
    fresh.type("bias", 40)
    layers = change(layers, 0, kernel=kernel, bias=[40, 0])
    assert_maps(fresh.state["maps"], expected_maps(image, layers))
    fresh.choose("[aria-label='channel of conv 1']", 1)
    fresh.type("weight at row 0, column 1", 7)
    kernel[1, 0, 0, 1] = 7
    assert_maps(fresh.state["maps"], expected_maps(image, change(layers, 0, kernel=kernel)))
    fresh.point(2, 5, 2)
    assert_marks(fresh.state, image, layers, (2, 5, 2))
    fresh.press("#reset")
    assert_maps(fresh.state["maps"], expected_maps(image, explored.layers))
    assert fresh.browser.get_log("browser") == []


def test_explorer_reports_impossible_settings(fresh):
    fresh.choose("#layer", 0)
    fresh.type("dilation", 15)
    state = fresh.state
    message = (
        "The kernel is larger than the padded input: it spans 31 rows, and there are 30 "
        "(28 + padding 1 + 1). Pad more or dilate less."
    )
    assert state["maps"][1:] == [None, None]
    assert state["messages"][1:] == [message, "There is no map before this one."]
    assert fresh.text("#formula .mistake") == message
    assert fresh.text("[aria-label='conv 1'].stage .mistake") == message
    assert fresh.text("#live") == state["messages"][2]
    assert fresh.text("#sum .steps") == state["messages"][2]
    fresh.type("dilation", 14)  # spans 29 of 30
    assert np.shape(fresh.state["maps"][1]) == (2, 1, 1)
    fresh.type("padding", 300)
    assert "at most 128" in fresh.state["messages"][1]
    before = fresh.state["messages"]
    fresh.type("padding", -1)
    assert fresh.text("#settings > .mistake") == "padding must be a whole number of at least 0."
    assert fresh.state["messages"] == before
    for value in ("1.5", Keys.BACKSPACE):
        fresh.type("padding", value)
        assert fresh.text("#settings > .mistake") == "padding must be a whole number of at least 0."
    assert fresh.browser.get_log("browser") == []
