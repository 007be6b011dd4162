"""Fixtures for every test: float64 only where a test asks for it."""

import jax
import pytest


@pytest.fixture
def x64():
    """Float64 while the test lasts; the setting of the process stays as it was."""
    with jax.enable_x64(True):
        yield
