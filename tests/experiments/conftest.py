"""The experiments train the same few networks again and again: each is compiled once."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled(compiled_once):
    pass
