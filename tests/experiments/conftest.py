"""The tests of the experiments train the same few networks: each is compiled once."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled(compiled_once):
    """The experiments train the same few networks repeatedly: each is compiled once."""


def pytest_collection_modifyitems(items):
    """Marks the tests that use a browser as slow."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
