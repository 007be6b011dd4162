"""Measures how long a browser takes to open a report: `python -m tests.report.report_seconds`.

The run has 5,000 steps and ten layers. Every round starts a new browser, which has compiled and
cached nothing. The time ends when everything in view is drawn.
"""

import statistics
import tempfile
from pathlib import Path

from convjax.report.build import write_report
from tests.experiments.browser import opened
from tests.helpers import make_record
from tests.report.reported import left_run, rough

ROUNDS = 7
STEPS, LAYERS = 5000, 10

# The page reports when it is drawn; polling would add its own pauses.
WATCH = """
new MutationObserver((_, observer) => {
  if (document.documentElement.dataset.drawn === undefined) return;
  window.drawnAfter = performance.now();
  observer.disconnect();
}).observe(document, {attributes: true, subtree: true, attributeFilter: ["data-drawn"]});
"""
ASK = """
const done = arguments[0];
const ask = () => window.drawnAfter === undefined ? setTimeout(ask, 50) : done(window.drawnAfter);
ask();
"""


def seconds(page: Path) -> float:
    """Returns the seconds from the navigation until everything in view is drawn."""
    with opened() as browser:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        browser.set_script_timeout(60)
        browser.get(page.as_uri())
        return browser.execute_async_script(ASK) / 1000


def main() -> None:
    """Prints the seconds of each round and their median."""
    with tempfile.TemporaryDirectory() as folder:
        record = rough(make_record(steps=STEPS, layers=LAYERS))
        run = left_run(Path(folder) / "run", steps=STEPS, record=record)
        page = write_report(run)
        print(f"{STEPS:,} steps, {LAYERS} layers, {page.stat().st_size / 1e6:.1f} MB")
        found = [seconds(page) for _ in range(ROUNDS)]
    print("seconds:", *(f"{value:.2f}" for value in found))
    print(f"median {statistics.median(found):.2f} s")


if __name__ == "__main__":
    main()
