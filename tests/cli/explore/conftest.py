"""One browser for all tests of the explorer, the page that its command writes, and a lab."""

import pytest

from experiments.harness.lab import Lab
from tests.cli.explore.command import invoke
from tests.cli.explore.reader import Page
from tests.experiments.browser import browser, view

__all__ = ["browser"]  # a fixture


@pytest.fixture(scope="package")
def default(tmp_path_factory):
    path = tmp_path_factory.mktemp("default") / "explorer.html"
    result = invoke("--out", path)
    assert result.exit_code == 0, result.output
    assert "explorer.html" in result.stdout
    return path


@pytest.fixture
def fresh(browser, default):
    """The default page, loaded anew for a test that changes it."""
    view(browser)
    return Page(browser, default)


@pytest.fixture(scope="package")
def lab(tmp_path_factory):
    return Lab(out=tmp_path_factory.mktemp("lab"))
