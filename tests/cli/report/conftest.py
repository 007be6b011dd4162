"""One browser for all tests of reports, a run of some length, and its page and a comparison's."""

from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from convjax.cli.report import run_report
from tests.cli.report.reader import Report
from tests.experiments.browser import browser, view
from tests.helpers import make_record
from tests.report.reported import left_run, rough

__all__ = ["browser"]  # a fixture

app = typer.Typer()
app.command()(run_report)


@pytest.fixture(scope="package")
def invoke():
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="package")
def records():
    long = replace(make_record(steps=1500, layers=4, every=2), parameters=None)
    return [rough(long), rough(long, seed=1)]


@pytest.fixture(scope="package")
def runs(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("runs")
    return [
        left_run(folder / f"seed-{i}", steps=1500, record=record, seed=i)
        for i, record in enumerate(records)
    ]


@pytest.fixture(scope="package")
def one(invoke, runs):
    result = invoke(runs[0])
    assert result.exit_code == 0, result.output
    return runs[0] / "report.html"


@pytest.fixture(scope="package")
def both(invoke, runs):
    path = runs[0].parent / "both.html"
    result = invoke(*runs, "--out", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def report(browser, one):
    view(browser)
    return Report(browser, one)


@pytest.fixture
def compared(browser, both):
    view(browser)
    return Report(browser, both)
