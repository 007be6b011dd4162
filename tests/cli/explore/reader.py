"""A page of the explorer in the browser, used as a reader would; each move waits to be drawn."""

from io import BytesIO

import numpy as np
from PIL import Image
from selenium.webdriver.common.keys import Keys

from tests.experiments.browser import after_a_frame

# Read from the page in one go; maps as nested lists, None where one is impossible.
STATE = """
const nested = ({channels, height, width, values}) => Array.from({length: channels}, (_, c) =>
  Array.from({length: height}, (_, r) => Array.from(values.subarray(
    (c * height + r) * width, (c * height + r + 1) * width))));
return {
  maps: explorer.maps.map((map) => map.impossible ? null : nested(map)),
  messages: explorer.maps.map((map) => map.impossible ?? null),
  marks: explorer.marks, cell: explorer.cell,
};
"""

BOXES = """
const [index] = arguments, {height, width} = explorer.maps[index];
return Array.from({length: height}, (_, row) => Array.from({length: width}, (_, column) => {
  const box = explorer.box(index, row, column);
  return [box.x, box.y, box.width, box.height];
}));
"""


class Page:
    """A page in the browser."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())
        self.point_away()

    @property
    def state(self):
        return self.browser.execute_script(STATE)

    def text(self, selector):
        return self.browser.find_element("css selector", selector).text.replace("\xa0", " ")

    def boxes(self, index):
        """Where the cells of a map are drawn: (rows, columns, 4), each x, y, width and height."""
        return np.array(self.browser.execute_script(BOXES, index))

    def middle(self, index, row, column):
        x, y, width, height = self.browser.execute_script(
            "const box = explorer.box(...arguments); return [box.x, box.y, box.width, box.height]",
            index,
            row,
            column,
        )
        return x + width / 2, y + height / 2

    def mouse(self, kind, x, y, **options):
        self.browser.execute_cdp_cmd(
            "Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **options}
        )

    def point(self, *cell):
        self.browser.execute_script("scrollTo(0, 0)")
        self.mouse("mouseMoved", *self.middle(*cell))
        after_a_frame(self.browser)

    def point_away(self):
        self.mouse("mouseMoved", 1, 1)
        after_a_frame(self.browser)

    def click(self, *cell):
        self.point(*cell)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, *self.middle(*cell), button="left", clickCount=1)
        after_a_frame(self.browser)

    def choose(self, selector, value):
        """Chooses an option, as the keyboard would, too."""
        self.browser.execute_script(
            "const box = document.querySelector(arguments[0]); box.value = arguments[1];"
            "box.dispatchEvent(new Event('change'))",
            selector,
            str(value),
        )
        after_a_frame(self.browser)

    def press(self, selector):
        self.browser.find_element("css selector", selector).click()
        after_a_frame(self.browser)

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
