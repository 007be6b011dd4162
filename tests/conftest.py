"""Fixtures for every test: float64 only where a test asks for it."""

import jax
import pytest

# The command line turns JAX's persistent cache on for the whole process; its tests run commands in
# processes of their own, and all others compile what they test.
jax.config.update("jax_enable_compilation_cache", False)

# Before JAX looks for devices: a training can be split over some of them.
jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture
def x64():
    """Float64 while the test lasts; the setting of the process stays as it was."""
    with jax.enable_x64(True):
        yield
