import itertools
import json
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from convjax import conv2d
from convjax.explorer import Affine, Convolution, Dense, MaxPool, Relu, page
from convjax.precedents import Windows, output_shape, precedents, trace
from convjax.runs import RunFolder
from experiments.cli import app
from experiments.explore import example
from experiments.lab import Lab
from experiments.setting import BATCH_NORM, LINEAR, THREE_OR_SEVEN
from experiments.spreadsheet import PUBLISHED
from tests.experiments.browser import after_a_frame, browser, view
from tests.helpers import make_record

__all__ = ["browser"]  # a fixture

SHEET = Path(__file__).parents[3] / "shared" / "data" / "conv-example.xlsx"

# Read from the page in one go; maps as nested lists, None where one is impossible.
STATE = """
const nested = ({channels, height, width, values}) => Array.from({length: channels}, (_, c) =>
  Array.from({length: height}, (_, r) => Array.from(values.subarray(
    (c * height + r) * width, (c * height + r + 1) * width))));
return {
  maps: explorer.maps.map((map) => map.impossible ? null : nested(map)),
  told: explorer.maps.map((map) => map.impossible ?? null),
  marks: explorer.marks, cell: explorer.cell,
};
"""


def invoke(*arguments):
    return CliRunner().invoke(app, ["explore", *map(str, arguments)])


class Page:
    """A page in the browser, moved as a reader would."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())
        self.point_away()

    @property
    def state(self):
        after_a_frame(self.browser)
        return self.browser.execute_script(STATE)

    def text(self, selector):
        return self.browser.find_element("css selector", selector).text.replace("\xa0", " ")

    def box(self, *cell):
        return self.browser.execute_script(
            "const box = explorer.box(...arguments); return [box.x, box.y, box.width, box.height]",
            *cell,
        )

    def mouse(self, kind, x, y, **options):
        self.browser.execute_cdp_cmd(
            "Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **options}
        )
        after_a_frame(self.browser)

    def point(self, *cell):
        self.browser.execute_script("scrollTo(0, 0)")
        x, y, width, height = self.box(*cell)
        self.mouse("mouseMoved", x + width / 2, y + height / 2)

    def point_away(self):
        self.mouse("mouseMoved", 1, 1)

    def click(self, *cell):
        self.point(*cell)
        x, y, width, height = self.box(*cell)
        for kind in ("mousePressed", "mouseReleased"):
            options = {"button": "left", "clickCount": 1}
            self.mouse(kind, x + width / 2, y + height / 2, **options)

    def choose(self, selector, value):
        """Chooses an option, as the keyboard would, too."""
        self.browser.execute_script(
            "const box = document.querySelector(arguments[0]); box.value = arguments[1];"
            "box.dispatchEvent(new Event('change'))",
            selector,
            str(value),
        )

    def type(self, label, value):
        field = self.browser.find_element("css selector", f'#settings [aria-label="{label}"]')
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value))
        after_a_frame(self.browser)

    def keys(self, *keys):
        self.browser.switch_to.active_element.send_keys(*keys)
        after_a_frame(self.browser)

    def pixels(self):
        """What the screen shows, (height, width, 3)."""
        with Image.open(BytesIO(self.browser.get_screenshot_as_png())) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    path = tmp_path_factory.mktemp("default") / "explorer.html"
    result = invoke("--out", path)
    assert result.exit_code == 0, result.output
    assert "explorer.html" in result.stdout
    return path


def odd_layers():
    """Settings of which no two are alike, and every kind of layer and step."""
    rng = np.random.default_rng(0)
    affine = Affine(rng.normal(size=3), rng.normal(size=3))
    return [
        Convolution(
            "first",
            rng.normal(size=(3, 2, 3, 2)),
            rng.normal(size=3),
            stride=(1, 2),
            padding=((0, 2), (1, 3)),
            dilation=(2, 3),
            steps=[Relu(), affine],
        ),
        MaxPool("pool", Windows((2, 3), stride=(2, 1), padding=(1, 0))),
        Convolution(
            "second",
            rng.normal(size=(2, 3, 1, 2)),
            steps=[affine._replace(scale=[2, -1], shift=[0, 1]), Relu()],
        ),
        Dense("unit", rng.normal(size=(2, 2, 6, 5)), [1, 2]),
    ]


ODD_IMAGE = np.random.default_rng(1).normal(size=(2, 12, 14))


def windows_of(layers, size):
    found = []
    for layer in layers:
        if isinstance(layer, MaxPool):
            found.append(layer.windows)
        elif isinstance(layer, Dense):
            found.append(Windows(size))
        else:
            kernel_size = np.shape(layer.kernel)[2:]
            found.append(Windows(kernel_size, layer.stride, layer.padding, layer.dilation))
        size = output_shape(size, found[-1])
    return found


def expected_maps(image, layers):
    """All maps by `conv2d` and NumPy in float64."""
    maps = [np.asarray(image, np.float64)]
    with jax.enable_x64(True):
        for layer, windows in zip(layers, windows_of(layers, maps[0].shape[1:]), strict=True):
            before = maps[-1]
            if isinstance(layer, MaxPool):
                height, width = output_shape(before.shape[1:], windows)
                pooled = np.empty((len(before), height, width))
                for i, j in np.ndindex(height, width):
                    seen = precedents((i, j), before.shape[1:], windows)
                    rows, columns = zip(*(found.cell for found in seen), strict=True)
                    pooled[:, i, j] = before[:, rows, columns].max(1)
                maps.append(pooled)
                continue
            weights = layer.weights if isinstance(layer, Dense) else layer.kernel
            bias = None if layer.bias is None else jnp.asarray(layer.bias, jnp.float64)
            settings = {"stride": windows.stride, "padding": windows.padding}
            after = np.asarray(
                conv2d(
                    jnp.asarray(before),
                    jnp.asarray(weights, jnp.float64),
                    bias,
                    dilation=windows.dilation,
                    layout="NCHW",
                    **settings,
                )
            )
            for step in layer.steps:
                if isinstance(step, Relu):
                    after = np.maximum(after, 0)
                else:
                    scale, shift = (np.reshape(v, (-1, 1, 1)) for v in (step.scale, step.shift))
                    after = after * scale + shift
            maps.append(after)
    return maps


def assert_maps(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert np.shape(mine) == theirs.shape
        # The same sums of float64 products in another order.
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12 * abs(theirs).max())


def assert_marks(state, image, layers, cell):
    """The marks are those of `trace`, in every map before the cell's."""
    index, row, column = cell
    assert [state["cell"][name] for name in ("map", "row", "column")] == list(cell)
    windows = windows_of(layers, np.shape(image)[1:])[:index]
    masks = trace((row, column), np.shape(image)[1:], windows)
    assert [sorted(map(tuple, marks)) for marks in state["marks"]] == [
        sorted(map(tuple, np.argwhere(mask).tolist())) for mask in masks
    ]


@pytest.fixture
def shown(browser, default):
    view(browser)
    return Page(browser, default)


def test_loads_without_errors_or_network(shown):
    assert shown.browser.get_log("browser") == []
    fetched = "return performance.getEntriesByType('resource').length"
    assert shown.browser.execute_script(fetched) == 0
    explored = example()
    assert_maps(shown.state["maps"], expected_maps(explored.image, explored.layers))


@pytest.mark.parametrize("cell", [(2, 3, 3), (2, 0, 6), (1, 0, 0), (1, 13, 5), (0, 8, 4)])
def test_pointing_marks_the_precedents(shown, cell):
    explored = example()
    shown.point(*cell)
    state = shown.state
    assert_marks(state, explored.image, explored.layers, cell)
    if cell == (2, 3, 3):
        assert len(state["marks"][0]) == 49


def test_marks_through_odd_settings(browser, tmp_path):
    layers = odd_layers()
    (tmp_path / "odd.html").write_text(page("odd", ODD_IMAGE, layers))
    odd = Page(browser, tmp_path / "odd.html")
    state = odd.state
    assert_maps(state["maps"], expected_maps(ODD_IMAGE, layers))
    for index, found in enumerate(state["maps"]):
        height, width = np.shape(found)[1:]
        for row, column in {(0, 0), (height - 1, width - 1), (height // 2, width // 3)}:
            odd.point(index, row, column)
            assert_marks(odd.state, ODD_IMAGE, layers, (index, row, column))
    assert browser.get_log("browser") == []


def mixed(start, end, share):
    return np.asarray(start) + (np.asarray(end) - start) * share


GROUND, TEXT, MARK = (255, 255, 255), (27, 29, 33), (179, 74, 0)  # of base.html, light


def test_marks_are_drawn(shown):
    shown.point(2, 3, 3)
    screen, image = shown.pixels(), example().image[0]
    (mask, _) = trace((3, 3), (28, 28), [Windows(3, stride=2, padding=1)] * 2)
    seen = 0
    for row, column in np.ndindex(28, 28):
        x, y, width, height = shown.box(0, row, column)
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
        x, y, width, height = shown.box(0, row, column)
        for distance, is_line in ((0, True), (1, False)):
            edge_y = y + height / 2 + down * height * (0.5 + distance)
            edge_x = x + width / 2 + right * width * (0.5 + distance)
            part = screen[int(edge_y) - 1 : int(edge_y) + 1, int(edge_x) - 1 : int(edge_x) + 1]
            assert (abs(part - MARK).max(-1) <= 2).any() == is_line
    shown.point(0, 0, 0)
    again = shown.pixels()
    x, y, width, height = shown.box(0, 9, 9)
    assert (again[int(y + height / 2), int(x)] != MARK).any()


def test_the_sum_of_a_cell(shown):
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


def test_steps_and_pools_are_shown(browser, tmp_path):
    layers = odd_layers()
    (tmp_path / "odd.html").write_text(page("odd", ODD_IMAGE, layers))
    odd = Page(browser, tmp_path / "odd.html")
    maps = odd.state["maps"]
    odd.point(1, 4, 4)
    steps = odd.text("#sum .steps").splitlines()
    assert [step.split()[0] for step in steps] == ["12", "+", "ReLU,", "batch"]
    assert odd.text("#sum .value") == f"= {maps[1][0][4][4]!r}".replace("-", "−")
    odd.point(2, 2, 1)
    assert odd.text("#sum .steps").startswith("the largest of the window")
    winners = browser.find_elements("css selector", ".products td.winner b")
    assert len(winners) == 1
    assert float(winners[0].text.replace("−", "-")) == pytest.approx(maps[2][0][2][1], rel=5e-3)


def change(layers, index, **settings):
    return [*layers[:index], layers[index]._replace(**settings), *layers[index + 1 :]]


def test_changes_are_computed(shown):
    explored = example()
    layers, image = explored.layers, explored.image
    shown.choose("#layer", 0)
    for label, value in (("stride", 1), ("padding", 3), ("dilation", 2)):
        layers = change(layers, 0, **{label: value})
        shown.type(label, value)
        maps = expected_maps(image, layers)
        assert_maps(shown.state["maps"], maps)
        side, span = maps[1].shape[1], layers[0].dilation * 2 + 1
        padding, stride = layers[0].padding, layers[0].stride
        formula = f"⌊(28 + {padding} + {padding} − {span}) / {stride}⌋ + 1 = {side}"
        assert formula in shown.text("#formula")
        assert formula in shown.text("[aria-label='conv 1'].stage .formula")
    shown.type("weight at row 2, column 0", -2.5)
    kernel = np.array(layers[0].kernel, float)
    kernel[0, 0, 2, 0] = -2.5
    shown.type("bias", 40)
    layers = change(layers, 0, kernel=kernel, bias=[40, 0])
    assert_maps(shown.state["maps"], expected_maps(image, layers))
    shown.choose("[aria-label='channel of conv 1']", 1)
    shown.type("weight at row 0, column 1", 7)
    kernel[1, 0, 0, 1] = 7
    assert_maps(shown.state["maps"], expected_maps(image, change(layers, 0, kernel=kernel)))
    shown.point(2, 5, 2)
    assert_marks(shown.state, image, layers, (2, 5, 2))
    shown.browser.find_element("id", "reset").click()
    assert_maps(shown.state["maps"], expected_maps(image, explored.layers))
    assert shown.browser.get_log("browser") == []


def test_a_side_of_its_own_can_be_changed(browser, tmp_path):
    layers = odd_layers()
    (tmp_path / "odd.html").write_text(page("odd", ODD_IMAGE, layers))
    odd = Page(browser, tmp_path / "odd.html")
    odd.choose("#layer", 0)
    odd.type("padding, bottom", 4)
    odd.type("stride, rows", 2)
    wanted = change(layers, 0, padding=((0, 4), (1, 3)), stride=(2, 2))
    assert_maps(odd.state["maps"][:2], expected_maps(ODD_IMAGE, wanted[:1]))
    assert "rows: ⌊(12 + 0 + 4 − 5) / 2⌋ + 1 = 6" in odd.text("#formula")
    assert "columns: ⌊(14 + 1 + 3 − 4) / 2⌋ + 1 = 8" in odd.text("#formula")
    assert "unit has weights for a map of 6 × 5 cells" in odd.state["told"][4]


def test_impossible_settings_are_told(shown):
    shown.choose("#layer", 0)
    shown.type("dilation", 15)
    state = shown.state
    message = (
        "The kernel is larger than the padded input: it spans 31 rows, and there are 30 "
        "(28 + padding 1 + 1). Pad more or dilate less."
    )
    assert state["maps"][1:] == [None, None]
    assert state["told"][1:] == [message, "There is no map before this one."]
    assert shown.text("#formula .mistake") == message
    assert shown.text("[aria-label='conv 1'].stage .mistake") == message
    assert shown.text("#live") == state["told"][2]
    assert shown.text("#sum .steps") == state["told"][2]
    shown.type("dilation", 14)  # spans 29 of 30
    assert np.shape(shown.state["maps"][1]) == (2, 1, 1)
    shown.type("padding", 300)
    assert "at most 128" in shown.state["told"][1]
    before = shown.state["told"]
    shown.type("padding", -1)
    assert shown.text("#settings > .mistake") == "padding must be a whole number from 0 up."
    assert shown.state["told"] == before
    for value in ("1.5", Keys.BACKSPACE):
        shown.type("padding", value)
        assert shown.text("#settings > .mistake") == "padding must be a whole number from 0 up."
    assert shown.browser.get_log("browser") == []


def test_by_keyboard(shown):
    explored = example()
    shown.browser.execute_script("document.activeElement.blur()")
    shown.browser.find_element("tag name", "body").send_keys(Keys.TAB)
    focused = "return document.activeElement.getAttribute(arguments[0])"
    assert shown.browser.execute_script(focused, "role") == "application"
    assert shown.browser.execute_script(focused, "aria-label").startswith(
        "image: 28 × 28".replace(" × ", "\xa0×\xa0")
    )
    assert shown.state["cell"] == {"map": 0, "channel": 0, "row": 0, "column": 0}
    labels = []
    for _ in range(20):
        shown.keys(Keys.TAB)
        labels.append(shown.browser.execute_script(focused, "aria-label") or "")
        if labels[-1].startswith("conv 1"):
            break
    assert "weights 3×3 for image" in " ".join(labels)
    shown.keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert_marks(shown.state, explored.image, explored.layers, (1, 2, 1))
    assert shown.text("#live").startswith("conv 1, top edges, row 2, column 1: ")
    shown.keys(Keys.END, Keys.ARROW_RIGHT)
    assert shown.state["cell"]["column"] == 13
    shown.keys(Keys.HOME, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_UP)
    assert_marks(shown.state, explored.image, explored.layers, (1, 0, 0))
    shown.keys(Keys.PAGE_DOWN)
    assert shown.state["cell"]["channel"] == 1
    assert shown.text("#sum-title") == "conv 1, left edges, row 0, column 0"
    style = shown.browser.execute_script(
        "const style = getComputedStyle(document.activeElement);"
        "return [style.outlineStyle, style.outlineWidth]"
    )
    assert style == ["solid", "3px"]
    names = shown.browser.execute_script(
        "return [...document.querySelectorAll('button, select, input, canvas[tabindex]')]"
        ".map((e) => e.ariaLabel || e.labels?.[0]?.textContent || e.textContent)"
    )
    assert all(names)


def test_a_pointer_at_rest_does_not_hide_the_keyboard(shown):
    shown.point(2, 1, 1)
    shown.browser.execute_script("document.querySelectorAll('.map')[1].focus()")
    assert shown.state["cell"]["map"] == 1
    shown.point(2, 1, 2)
    assert shown.state["cell"]["map"] == 2
    shown.keys(Keys.ARROW_RIGHT)
    assert shown.state["cell"] == {"map": 1, "channel": 0, "row": 0, "column": 1}


def test_a_click_keeps_a_cell(shown):
    shown.click(1, 4, 6)
    shown.point(2, 0, 0)
    assert shown.state["cell"]["map"] == 2
    shown.point_away()
    assert shown.state["cell"] == {"map": 1, "channel": 0, "row": 4, "column": 6}


def test_the_next_frame_follows_the_pointer(shown):
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
def test_text_is_readable(shown, scheme):
    view(shown.browser, scheme=scheme)
    shown.choose("#layer", 0)
    shown.type("padding", -1)  # a mistake is to be read, too
    shown.point(2, 3, 3)
    found = shown.browser.execute_script(CONTRASTS)
    assert len(found) > 80
    assert any("whole number" in text for _, text in found)
    # WCAG 2.1, level AA, for text of any size.
    assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []
    # What is no text: level AA asks for 3 to 1. The left end of the scale, and the sign for marks.
    screen = shown.pixels()
    ground = screen[2, 2]
    for selector, inward in (("#scale", 2), (".swatch", 1)):
        x, y = shown.browser.execute_script(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.x, box.y + box.height / 2]",
            selector,
        )
        light, dark = sorted(map(luminance, (ground, screen[int(y), int(x) + inward])))[::-1]
        assert (light + 0.05) / (dark + 0.05) > 3, selector
    assert (ground > 200).all() if scheme == "light" else (ground < 60).all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_cells_are_readable(shown, scheme):
    view(shown.browser, scheme=scheme)
    shown.point(2, 5, 4)
    screen = shown.pixels()
    for row, column in np.ndindex(7, 7):
        x, y, width, height = (round(v) for v in shown.box(2, row, column))
        cell = screen[y + 4 : y + height - 4, x + 4 : x + width - 4]
        light = luminance(cell)
        ratio = (light.max() + 0.05) / (light.min() + 0.05)
        # A colour against black or white, whichever is further, has at least √21; the strokes of
        # small digits are blended with it.
        assert ratio > 4, (row, column, ratio)


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_overflows(shown, width):
    view(shown.browser, width=width)
    after_a_frame(shown.browser)
    widest = shown.browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= width


# --- the chapter's spreadsheet -----------------------------------------------------------------


@pytest.fixture(scope="module")
def from_spreadsheet(tmp_path_factory):
    if not SHEET.exists():
        pytest.skip("the chapter's conv-example.xlsx is not part of the project")
    path = tmp_path_factory.mktemp("sheet") / "explorer.html"
    result = invoke("--spreadsheet", SHEET, "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_the_spreadsheets_value(browser, from_spreadsheet):
    from experiments.spreadsheet import Sheet, network

    view(browser)
    sheet = Page(browser, from_spreadsheet)
    assert repr(PUBLISHED) == "258.73762671075724"
    assert sheet.text("#sum .value") == "= 258.73762671075724"
    state = sheet.state
    assert state["maps"][4] == [[[PUBLISHED]]]
    found = network(Sheet(SHEET))
    for mine, name in zip(state["maps"][1:4], ("maps_1", "maps_2", "pooled"), strict=True):
        # The same sums of float64 products in another order.
        np.testing.assert_allclose(mine, found[name], rtol=1e-12, atol=1e-12)
    assert len(browser.find_elements("css selector", ".products td")) == 2 * 12 * 13
    # All of the map, 24×24 of the second's: nothing reads its 25th column but the half windows.
    assert [len(marks) for marks in state["marks"]] == [28 * 28, 26 * 26, 24 * 25, 12 * 13]
    assert browser.get_log("browser") == []
    widest = browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= 1280


def test_a_pools_half_window(browser, from_spreadsheet):
    sheet = Page(browser, from_spreadsheet)
    sheet.point(3, 4, 12)
    assert sheet.state["marks"][2] == [[8, 24], [9, 24]]
    assert len(browser.find_elements("css selector", ".products td.outside")) == 2


# --- trained runs --------------------------------------------------------------------------------


def leave_run(lab, setting, path):
    """A run's folder as a training leaves it, with statistics as if it had been trained."""
    model = nnx.clone(lab.network(setting, 0))
    rng = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(getattr(module, "mean", None), nnx.BatchStat):
            module.mean[...] = jnp.asarray(rng.normal(size=module.mean.shape), jnp.float32)
            module.var[...] = jnp.asarray(rng.uniform(0.5, 2, module.var.shape), jnp.float32)
    folder = RunFolder(path, lab.run_config(setting, 0))
    folder.add_metrics({"epoch": 0, "accuracy": 0.5})
    folder.write_record(make_record(steps=3, layers=1))
    folder.write_model(model)
    model.eval()
    return model


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(out=tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("setting", [BATCH_NORM, THREE_OR_SEVEN], ids=["digits", "threes-sevens"])
def test_a_trained_run(browser, lab, setting, tmp_path):
    model = leave_run(lab, setting, tmp_path / "run")
    result = invoke("--run", tmp_path / "run", "--out", tmp_path / "run.html")
    assert result.exit_code == 0, result.output
    view(browser)
    run = Page(browser, tmp_path / "run.html")
    state = run.state
    assert len(state["maps"]) == 6
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    image = (example().image / 255 - config["mean"][0]) / config["std"][0]
    np.testing.assert_allclose(state["maps"][0], image, rtol=1e-15)
    logits = model(jnp.asarray(image.transpose(1, 2, 0)[None], jnp.float32))[0]
    # The network computes in float32.
    np.testing.assert_allclose(np.ravel(state["maps"][5]), logits, rtol=1e-4, atol=1e-5)
    assert ("batch norm" in run.text("#sum .steps")) == (setting.norm == "batch")
    assert state["cell"]["channel"] == int(jnp.argmax(logits))
    run.point(3, 1, 2)
    windows = [Windows(5 if setting is BATCH_NORM else 3, 2, 2 if setting is BATCH_NORM else 1)]
    masks = trace((1, 2), (28, 28), [*windows, *[Windows(3, 2, 1)] * 2])
    assert [len(marks) for marks in run.state["marks"]] == [mask.sum() for mask in masks]
    assert browser.get_log("browser") == []
    widest = browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= 1280


def test_a_run_made_on_a_gpu(tmp_path):
    lab = Lab(out=tmp_path / "lab", layout="NHWC")
    leave_run(lab, THREE_OR_SEVEN, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["layout"], config["environment"]["backend"] = "auto", "gpu"
    file.write_text(json.dumps(config))
    result = invoke("--run", tmp_path / "run", "--out", tmp_path / "run.html")
    assert result.exit_code == 0, result.output


def test_images_of_a_folder(browser, tmp_path):
    for split, digit in itertools.product(("train", "test"), ("3", "7")):
        (tmp_path / "mine" / split / digit).mkdir(parents=True)
        pixels = np.full((28, 28), 200, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "mine" / split / digit / "0.png")
    lab = Lab(str(tmp_path / "mine"), out=tmp_path / "lab")
    leave_run(lab, THREE_OR_SEVEN, tmp_path / "run")
    out = tmp_path / "out" / "run.html"
    message = "--data-dir must be the folder of images that the run was trained on, 'mine/'"
    assert_mistake(invoke("--run", tmp_path / "run", "--out", out), message, out)
    result = invoke("--run", tmp_path / "run", "--data-dir", tmp_path / "mine", "--out", out)
    assert result.exit_code == 0, result.output
    image = np.array(Page(browser, out).state["maps"][0])
    np.testing.assert_allclose(image, np.full(image.shape, 200 / 255), rtol=1e-15)


# --- mistakes ------------------------------------------------------------------------------------


def assert_mistake(result, message, out):
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()
    assert not list(out.parent.glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spreadsheet", "absent.xlsx"], "must be the chapter's conv-example.xlsx"),
        (["--spreadsheet", __file__], "must be the chapter's conv-example.xlsx"),
        (["--run", "absent"], "holds no complete epoch of a run: config.json is missing"),
        (["--run", __file__], "a file of the run"),
        (["--run", "a", "--spreadsheet", "b"], "--run and --spreadsheet exclude each other"),
    ],
)
def test_mistakes_get_a_message_and_status_2(options, message, tmp_path):
    out = tmp_path / "explorer.html"
    assert_mistake(invoke(*options, "--out", out), message, out)


def test_an_existing_file_stays(tmp_path):
    (tmp_path / "mine.html").write_text("mine")
    result = invoke("--out", tmp_path / "mine.html")
    assert result.exit_code == 2
    assert "--out must be a new file" in result.stderr
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_runs_that_cannot_be_shown(lab, tmp_path):
    out = tmp_path / "out" / "explorer.html"
    leave_run(lab, LINEAR, tmp_path / "linear")
    message = "--run must be of a chain of convolutions"
    assert_mistake(invoke("--run", tmp_path / "linear", "--out", out), message, out)
    leave_run(lab, replace(BATCH_NORM, norm="layer"), tmp_path / "layer")
    message = "no norm but batch norm, got GroupNorm"
    assert_mistake(invoke("--run", tmp_path / "layer", "--out", out), message, out)
    leave_run(lab, BATCH_NORM, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "compared")
    (tmp_path / "compared" / "model.npz").unlink()
    message = "--run must hold the weights of its network, model.npz"
    assert_mistake(invoke("--run", tmp_path / "compared", "--out", out), message, out)
    (tmp_path / "run" / "model.npz").write_text("damaged")
    message = "is not a whole file of weights"
    assert_mistake(invoke("--run", tmp_path / "run", "--out", out), message, out)
    config = tmp_path / "run" / "config.json"
    for text in ('{"setting": {"nonsense": 1}}', "{}", "[]"):
        config.write_text(text)
        message = "--run must be a training of `python -m experiments run`"
        assert_mistake(invoke("--run", tmp_path / "run", "--out", out), message, out)
