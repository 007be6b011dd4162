"""A headless Chromium for the tests of pages: Debian's chromium and chromium-driver."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WANTED = "chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="package")
def browser():
    """The browser for all tests of a package."""
    if not all(programs()):
        reason = f"needs {WANTED}"
        if os.environ.get("CONVJAX_BROWSER") == "required" or os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with opened() as found:
        yield found


def programs() -> tuple[str | None, str | None]:
    """Returns the paths of the browser and its driver, each None if it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None), shutil.which("chromedriver")


@contextmanager
def opened() -> Iterator[webdriver.Chrome]:
    """Yields a new browser: 1280×900 pixels, light, one device pixel per CSS pixel."""
    chromium, driver = programs()
    if not (chromium and driver):
        raise FileNotFoundError(f"A browser must be installed: {WANTED}.")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # Root has no sandbox, and the /dev/shm of a container is small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    try:
        view(found)
        yield found
    finally:
        found.quit()


def view(browser, width=1280, height=900, scheme="light"):
    """Sets the size of the page and its colour scheme, "light" or "dark"."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def after_a_frame(browser):
    """Waits until the page is drawn."""
    browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));"
    )
