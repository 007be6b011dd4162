"""What a report shows in the browser, and what it never does."""

import re

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from tests.cli.explore.test_access import CONTRASTS
from tests.cli.report.reader import Report
from tests.experiments.browser import after_a_frame, view
from tests.report import report_seconds
from tests.report.reported import left_run

GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}


def test_report_charts_have_the_values_of_the_record(report, records):
    record = records[0]
    shown = report.trace("loss", "training, each batch")
    assert shown["x"].tolist() == list(range(1500))
    assert shown["y"].tolist() == record.loss.tolist()
    report.show("layers-mean")
    assert report.trace("layers-mean", "blocks.2.conv")["y"].tolist() == record.mean[:, 2].tolist()
    report.show("dimension-3")
    shown = report.run("return document.getElementById('chart-dimension-3').data[0].zmax")
    assert shown == pytest.approx(np.log1p(record.hist.max()))
    counts = report.run(
        "return document.getElementById('chart-dimension-3').data[0].customdata.map(r => [...r])"
    )
    np.testing.assert_array_equal(counts, record.hist[:, 3].T)


def test_report_pointer_shows_values(report, records):
    report.show("loss")
    report.point("loss", 0.4)
    label = report.label("loss")
    step = int(float(label[0].replace(",", "")))
    assert 400 < step < 800
    assert label[1] == f"training, each batch : {records[0].loss[step]:.4g}"
    report.show("dimension-0")
    report.point("dimension-0", 0.4)
    where, output, count = report.label("dimension-0")
    # Every column holds two steps, of which the first was watched.
    row = int(float(where.removeprefix("about step "))) // 2
    assert 0.2 < row / 750 < 0.6
    bin_ = int(float(output.removeprefix("output ")) / 0.25)
    assert count == f"{records[0].hist[row, 0, bin_]} values"


def test_report_zooms(report):
    report.show("loss")
    before = report.range("loss")
    x, y, width, height = report.box("loss")
    places = [(x + 0.2 * width, y + 0.5 * height), (x + 0.6 * width, y + 0.5 * height)]
    report.mouse("mouseMoved", *places[0])
    report.mouse("mousePressed", *places[0], button="left", clickCount=1)
    for share in (0.5, 1):
        between = [a + share * (b - a) for a, b in zip(*places, strict=True)]
        report.mouse("mouseMoved", *between, button="left", buttons=1)
    report.mouse("mouseReleased", *places[1], button="left", clickCount=1)
    span = before[1] - before[0]
    wanted = [before[0] + 0.2 * span, before[0] + 0.6 * span]
    report.wait(lambda: report.range("loss") != before)
    assert report.range("loss") == pytest.approx(wanted, abs=0.02 * span)
    report.keys("loss", "0")
    assert report.range("loss") == pytest.approx(before)


def test_report_keyboard_shows_values(report, records):
    report.show("loss")
    report.keys("loss", Keys.ARROW_RIGHT)
    first = f"step 0: training, each batch {float(records[0].loss[0])!r}, training "
    assert report.live.startswith(first)
    report.keys("loss", *[Keys.ARROW_RIGHT] * 3, Keys.ARROW_LEFT)
    assert report.live.startswith("step 2: ")
    # The label follows, twenty times a second at most.
    report.wait(lambda: report.label("loss")[:1] == ["2"])
    report.keys("loss", Keys.END)
    assert report.live.startswith("step 1499: ")
    low, high = report.range("loss")
    report.keys("loss", "+")
    closer = report.range("loss")
    assert closer[1] - closer[0] == pytest.approx((high - low) / 2)
    report.keys("loss", "-", Keys.HOME)
    report.show("dimension-1")
    report.keys("dimension-1", Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_UP)
    # Up from the lowest bin, twice.
    count = records[0].hist[0, 1, 2]
    assert report.live == f"step 0: {count} values from 0.5 to 0.75"
    assert report.run("return document.activeElement.id") == "chart-dimension-1"


def test_report_draws_charts_when_visible(report):
    assert report.is_drawn("loss")
    assert not report.is_drawn("dimension-3")
    report.show("dimension-3")


def test_report_legend_hides_lines(report):
    report.show("layers-mean")
    report.show("layers-std")
    button = report.find('.legend [data-key="blocks.1.conv"]')
    for visible in (False, True):
        button.click()
        after_a_frame(report.browser)
        assert button.get_attribute("aria-pressed") == str(visible).lower()
        for chart in ("layers-mean", "layers-std"):
            assert report.trace(chart, "blocks.1.conv")["visible"] is visible
            assert report.trace(chart, "blocks.0.conv")["visible"] is True


def test_report_changes_the_background(report):
    view(report.browser, scheme="light")
    report.show("loss")
    before = report.trace("loss", "training")["colour"]
    report.keys("loss", "+")
    zoomed = report.range("loss")
    view(report.browser, scheme="dark")
    report.wait(lambda: report.trace("loss", "training")["colour"] != before)
    assert set(report.ink("loss")) == {"rgb(230, 232, 235)"}
    assert report.range("loss") == pytest.approx(zoomed)
    view(report.browser, scheme="light")
    report.wait(lambda: report.trace("loss", "training")["colour"] == before)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_text_has_contrast(report, scheme):
    view(report.browser, scheme=scheme)
    report.show("dimension-0")
    after_a_frame(report.browser)
    found = report.run(CONTRASTS)
    assert len(found) > 100
    # WCAG 2.1, level AA, for text of any size.
    assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []
    text = "rgb(27, 29, 33)" if scheme == "light" else "rgb(230, 232, 235)"
    assert set(report.ink("dimension-0")) == {text}
    ground = report.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == GROUNDS[scheme]


@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_report_fits_the_width(browser, report, compared, width):
    for path in (report, compared):
        assert path.browser is browser
    view(browser, width=width)
    compared.show_all()
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    page, screen = compared.run(wide)
    assert page <= screen
    # No label of a chart begins or ends outside it.
    outside = compared.run(
        """
        return [...document.querySelectorAll(".chart")].flatMap((chart) => {
          const box = chart.getBoundingClientRect();
          return [...chart.querySelectorAll("svg text")].filter((e) => e.textContent.trim())
            .filter((e) => {
              const of = e.getBoundingClientRect();
              return of.left < box.left - 1 || of.right > box.right + 1 ||
                of.top < box.top - 1 || of.bottom > box.bottom + 1;
            }).map((e) => `${chart.id}: ${e.textContent}`);
        })
        """
    )
    assert outside == []
    # What is wider than the page can be scrolled within its own box, also by keyboard.
    boxes = compared.run(
        "return [...document.querySelectorAll('table')].map(t => t.closest('.scrolls')?.tabIndex)"
    )
    assert set(boxes) == {0}


def test_report_aligns_numbers_right(report):
    cells = report.run(
        "return [...document.querySelectorAll('td')].filter(c => /^-?[\\d,.]+( %)?$/.test("
        "c.textContent)).filter(c => !c.closest('#setup')).map(c => getComputedStyle(c).textAlign)"
    )
    assert len(cells) > 20
    assert set(cells) == {"right"}


def test_report_makes_no_requests(report):
    report.show_all()
    fetched = report.run(
        "return performance.getEntriesByType('resource').map(e => e.name)"
        ".filter(name => !/^(data|blob):/.test(name))"
    )
    assert fetched == []
    titles = report.run(
        "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    )
    assert titles
    assert not [title for title in titles if re.search("share|cloud|edit", title, re.IGNORECASE)]
    assert report.browser.get_log("browser") == []


def test_report_compares_runs(compared, records):
    compared.show("layers-std")
    names = [e.text for e in compared.browser.find_elements("css selector", "#layers .legend *")]
    names = [name for name in names if name]
    for layer in (2, 0):  # the one before the last is chosen at first
        if layer == 0:
            compared.run(
                "const box = document.querySelector('#layers .choice'); box.value = '0';"
                "box.dispatchEvent(new Event('change'))"
            )
            after_a_frame(compared.browser)
        for record, name in zip(records, names, strict=True):
            shown = compared.trace("layers-std", name)["y"]
            assert shown.tolist() == record.std[:, layer].tolist()
    compared.show("dimension-1")
    compared.show("dimension-0")
    tops = compared.run(
        "return [0, 1].map(i => document.getElementById(`chart-dimension-${i}`).data[0].zmax)"
    )
    # Of two watched steps in a column, the mean.
    top = max((r.merged(500).hist / 2).max() for r in records)
    assert tops == pytest.approx([np.log1p(top)] * 2)
    assert compared.browser.get_log("browser") == []


def test_report_of_a_minimal_run(browser, invoke, tmp_path):
    left_run(tmp_path / "begun", record=False, metrics=False, predictions=False)
    assert invoke(tmp_path / "begun").exit_code == 0
    view(browser)
    page = Report(browser, tmp_path / "begun" / "report.html")
    assert "There are no metrics yet" in page.find("#outcome").text
    assert browser.get_log("browser") == []


@pytest.mark.usefixtures("browser")  # or skipped where there is none
def test_report_opening_time_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(report_seconds, "ROUNDS", 1)
    monkeypatch.setattr(report_seconds, "STEPS", 20)
    report_seconds.main()
    of, found, middle = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"20 steps, 10 layers, \d\.\d MB", of)
    seconds = found.removeprefix("seconds: ")
    assert middle == f"median {seconds} s"
    assert float(seconds) > 0
