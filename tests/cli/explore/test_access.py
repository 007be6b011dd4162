"""The page by keyboard and pointer, light and dark, wide and narrow."""

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from convjax.cli.explorer_input import example
from tests.cli.explore.maps import assert_marks
from tests.experiments.browser import after_a_frame, view


def test_explorer_keyboard_moves_and_keeps_a_cell(fresh):
    explored = example()
    fresh.browser.execute_script("document.activeElement.blur()")
    fresh.browser.find_element("tag name", "body").send_keys(Keys.TAB)
    focused = "return document.activeElement.getAttribute(arguments[0])"
    assert fresh.browser.execute_script(focused, "role") == "application"
    assert fresh.browser.execute_script(focused, "aria-label").startswith(
        "image: 28 × 28".replace(" × ", "\xa0×\xa0")
    )
    assert fresh.state["cell"] == {"map": 0, "channel": 0, "row": 0, "column": 0}
    labels = []
    for _ in range(20):
        fresh.keys(Keys.TAB)
        labels.append(fresh.browser.execute_script(focused, "aria-label") or "")
        if labels[-1].startswith("conv 1"):
            break
    assert "weights 3×3 for image" in " ".join(labels)
    fresh.keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert_marks(fresh.state, explored.image, explored.layers, (1, 2, 1))
    assert fresh.text("#live").startswith("conv 1, top edges, row 2, column 1: ")
    fresh.keys(Keys.END, Keys.ARROW_RIGHT)
    assert fresh.state["cell"]["column"] == 13
    fresh.keys(Keys.HOME, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_UP)
    assert_marks(fresh.state, explored.image, explored.layers, (1, 0, 0))
    fresh.keys(Keys.PAGE_DOWN)
    assert fresh.state["cell"]["channel"] == 1
    assert fresh.text("#sum-title") == "conv 1, left edges, row 0, column 0"
    style = fresh.browser.execute_script(
        "const style = getComputedStyle(document.activeElement);"
        "return [style.outlineStyle, style.outlineWidth]"
    )
    assert style == ["solid", "3px"]
    names = fresh.browser.execute_script(
        "return [...document.querySelectorAll('button, select, input, canvas[tabindex]')]"
        ".map((e) => e.ariaLabel || e.labels?.[0]?.textContent || e.textContent)"
    )
    assert all(names)


def test_explorer_resting_pointer_does_not_override_the_keyboard(fresh):
    fresh.point(2, 1, 1)
    fresh.browser.execute_script("document.querySelectorAll('.map')[1].focus()")
    after_a_frame(fresh.browser)
    assert fresh.state["cell"]["map"] == 1
    fresh.point(2, 1, 2)
    assert fresh.state["cell"]["map"] == 2
    fresh.keys(Keys.ARROW_RIGHT)
    assert fresh.state["cell"] == {"map": 1, "channel": 0, "row": 0, "column": 1}


def test_explorer_click_keeps_a_cell(fresh):
    fresh.click(1, 4, 6)
    fresh.point(2, 0, 0)
    assert fresh.state["cell"]["map"] == 2
    fresh.point_away()
    assert fresh.state["cell"] == {"map": 1, "channel": 0, "row": 4, "column": 6}


CONTRASTS = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgb = (colours) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const luminance = (colour) => {
  const [r, g, b] = colour.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const parent = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || parent.closest("script, style")) continue;
  const grounds = [];
  for (let e = parent; e; e = e.parentElement) grounds.unshift(getComputedStyle(e).backgroundColor);
  const text = getComputedStyle(parent).color;
  const [a, b] = [luminance(rgb(grounds)), luminance(rgb([...grounds, text]))];
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05),
    walker.currentNode.textContent.trim()]);
}
return found;
"""


def luminance(colours):
    """WCAG's relative luminance of sRGB colours (…, 3) from 0 to 255."""
    share = np.asarray(colours) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_explorer_text_has_contrast(fresh, scheme):
    view(fresh.browser, scheme=scheme)
    fresh.choose("#layer", 0)
    fresh.type("padding", -1)  # the message of a mistake has contrast, too
    fresh.point(2, 3, 3)
    found = fresh.browser.execute_script(CONTRASTS)
    assert len(found) > 80
    assert any("whole number" in text for _, text in found)
    # WCAG 2.1, level AA, for text of any size.
    assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []
    # Graphics need 3 to 1 at level AA: the left end of the scale, and the colour of marks.
    screen = fresh.pixels()
    ground = screen[2, 2]
    for selector, inward in (("#scale", 2), (".swatch", 1)):
        x, y = fresh.browser.execute_script(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.x, box.y + box.height / 2]",
            selector,
        )
        light, dark = sorted(map(luminance, (ground, screen[int(y), int(x) + inward])))[::-1]
        assert (light + 0.05) / (dark + 0.05) > 3, selector
    assert (ground > 200).all() if scheme == "light" else (ground < 60).all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_explorer_cell_numbers_have_contrast(fresh, scheme):
    view(fresh.browser, scheme=scheme)
    fresh.point(2, 5, 4)
    screen = fresh.pixels()
    boxes = fresh.boxes(2).round().astype(int)
    for row, column in np.ndindex(7, 7):
        x, y, width, height = boxes[row, column]
        cell = screen[y + 4 : y + height - 4, x + 4 : x + width - 4]
        light = luminance(cell)
        ratio = (light.max() + 0.05) / (light.min() + 0.05)
        # A colour against black or white, whichever is further, has at least √21; the strokes of
        # small digits are blended with it.
        assert ratio > 4, (row, column, ratio)


@pytest.mark.parametrize("width", [1280, 800])
def test_explorer_fits_the_width(fresh, width):
    view(fresh.browser, width=width)
    after_a_frame(fresh.browser)
    widest = fresh.browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= width
