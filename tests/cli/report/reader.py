"""A report in the browser, read and used as a reader would."""

import numpy as np
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.experiments.browser import after_a_frame

DRAWN = "return document.documentElement.dataset.drawn"

# Of a line by its name, or of all; NaN becomes null in JSON.
TRACE = """
const [chart, name] = arguments;
const trace = document.getElementById(`chart-${chart}`).data.find((t) => t.name === name);
const plain = (values) => Array.from(values, (v) => (ArrayBuffer.isView(v) ? plain(v) : v));
return {
  x: plain(trace.x), y: plain(trace.y), z: trace.z && plain(trace.z), visible: trace.visible,
  zmax: trace.zmax, colour: trace.line?.color,
};
"""
RANGE = "return document.getElementById(`chart-${arguments[0]}`)._fullLayout[arguments[1]].range"
INK = """
return [...document.getElementById(`chart-${arguments[0]}`).querySelectorAll("svg text")]
  .filter((e) => e.textContent.trim()).map((e) => getComputedStyle(e).fill)
"""


class Report:
    """A page in the browser, with what is in view drawn."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())
        self.wait(lambda: browser.execute_script(DRAWN))

    def wait(self, happened):
        WebDriverWait(self.browser, 20, poll_frequency=0.02).until(lambda _: happened())

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def is_drawn(self, chart):
        return self.run("return !!document.getElementById(`chart-${arguments[0]}`).data", chart)

    def show(self, chart):
        """Scrolls to a chart and waits until it is drawn."""
        self.run(
            "document.getElementById(`chart-${arguments[0]}`).scrollIntoView({block: 'center'})",
            chart,
        )
        self.wait(lambda: self.is_drawn(chart))
        after_a_frame(self.browser)

    def show_all(self):
        for box in self.browser.find_elements(By.CSS_SELECTOR, ".chart"):
            self.show(box.get_attribute("data-chart"))

    def trace(self, chart, name):
        found = self.run(TRACE, chart, name)
        as_array = {key: np.array(found[key], np.float64) for key in ("x", "y", "z") if found[key]}
        return found | as_array

    def range(self, chart, axis="xaxis"):
        return self.run(RANGE, chart, axis)

    def ink(self, chart):
        """The colours of a chart's texts."""
        return self.run(INK, chart)

    def box(self, chart):
        """Where the lines of a chart are drawn: x, y, width, height."""
        return self.run(
            "const box = document.querySelector(`#chart-${arguments[0]} .nsewdrag`)"
            ".getBoundingClientRect(); return [box.x, box.y, box.width, box.height]",
            chart,
        )

    def mouse(self, kind, x, y, **options):
        event = {"type": kind, "x": x, "y": y, **options}
        self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        after_a_frame(self.browser)

    def point(self, chart, across, down=0.5):
        """Moves the pointer to a share of a chart's width and height."""
        x, y, width, height = self.box(chart)
        self.mouse("mouseMoved", x + across * width, y + down * height)

    def label(self, chart):
        """The texts of the label that Plotly shows."""
        lines = ".hoverlayer text:not(:has(tspan)), .hoverlayer tspan"
        found = self.browser.find_elements(By.CSS_SELECTOR, f"#chart-{chart} :is({lines})")
        return [line.text for line in found if line.text]

    def keys(self, chart, *keys):
        box = self.find(f"#chart-{chart}")
        for key in keys:
            box.send_keys(key)
        after_a_frame(self.browser)

    @property
    def live(self):
        return self.find("#live").get_attribute("textContent")
