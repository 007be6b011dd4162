"""The page of the ledger: its content, and how a browser shows it."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.cli.ledger_page import page, write_page
from experiments.harness.saved_results import SAVED_RESULTS, read_results
from tests.experiments.browser import browser, view  # noqa: F401
from tests.experiments.cli.test_ledger import result

LEFT_OUT = result("faster", "undecided", measured={}, reason="left out, about 5 min: `run faster`")


@pytest.fixture
def plots(tmp_path):
    """A folder with one picture, of 800×300 pixels."""
    (tmp_path / "plots").mkdir()
    pixels = np.zeros((300, 800, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plots" / "drawn.png")
    return tmp_path / "plots"


def test_page_has_all_of_a_claim_in_one_file(plots):
    text = page([result(pictures=("drawn", "absent"), rule="1 < 2")], plots)
    assert "batch 512 trains with one-cycle, lr_max 0.06" in text  # the statement
    assert "every seed trains; as published" in text
    assert "Rule: 1 &lt; 2." in text
    assert "0.9600 ± 0.0141" in text
    assert "<td>0.9743</td>" in text
    assert text.count("<img") == text.count("data:image/png;base64,") == 1
    assert not re.search(r"https?://|<script|<link", text)


def test_page_orders_its_contents_by_verdict(plots):
    found = [LEFT_OUT, result("schedule"), result("edge-formula", "refuted"), result()]
    text = page(found, plots)
    contents = text[text.index("<nav") : text.index("</nav>")]
    assert re.findall(r'href="#([^"]+)"', contents) == [
        "reproduced", "schedule", "one-cycle", "refuted", "edge-formula", "left-out", "faster",
    ]  # fmt: skip
    places = re.findall(r' id="([^"]+)"', text)
    assert len(set(places)) == len(places)
    assert set(re.findall(r'href="#([^"]+)"', contents)) <= set(places)


def test_page_marks_a_departure(plots):
    assert "(expected: refuted)" in page([result(expected="refuted")], plots)
    assert "(expected:" not in page([result()], plots)


def test_table_writes_the_page_of_a_file(tmp_path, plots):
    file = plots.parent / "results.json"
    entry = json.loads(json.dumps(result(pictures=("drawn",)).as_json()))
    file.write_text(json.dumps({"environment": {}, "claims": [entry]}))
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["table", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "data:image/png;base64," in out.read_text(encoding="utf-8")
    again = CliRunner().invoke(app, ["table", str(file), "--out", str(out)])
    assert again.exit_code == 2
    assert "--out must be a new file" in again.stderr


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_page_is_readable_in_a_browser(width, scheme, browser, tmp_path, plots):  # noqa: F811
    _, results = read_results(SAVED_RESULTS / "mnist5k.json")
    drawn = [
        result(pictures=("drawn",)),
        *(r for r in results if r.id != "one-cycle"),
    ]
    write_page(drawn, plots, tmp_path / "ledger.html")
    shutil.rmtree(plots)  # the page needs no other file
    view(browser, width=width, scheme=scheme)
    browser.get((tmp_path / "ledger.html").as_uri())
    assert not browser.get_log("browser")
    # Nothing is wider than the page; long tables scroll by themselves.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    image = browser.find_element(By.CSS_SELECTOR, "#one-cycle img")
    browser.execute_script("arguments[0].scrollIntoView()", image)
    assert browser.execute_script("return arguments[0].naturalWidth", image) == 800
    assert browser.find_element(By.CSS_SELECTOR, "#one-cycle figure").size["width"] <= width
    assert image.size["width"] >= 600  # so that its text is readable
    links = browser.find_elements(By.CSS_SELECTOR, "nav ol a")
    assert len(links) == len(results)
    assert all(link.is_displayed() for link in links)
    light = browser.execute_script(
        "return getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'"
    )
    assert light is (scheme == "light")
