"""Fixtures for every test: float64 only where a test asks for it."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from convjax.train import scan_loop
from experiments.harness.compilation_cache import use_compilation_cache
from tests import trainings

# The command line turns JAX's persistent cache on for the whole process; only the tests of the
# experiments keep it, all others compile what they test.
jax.config.update("jax_enable_compilation_cache", False)

# Before JAX looks for devices: a training can be split over some of them.
jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture
def x64():
    """Float64 while the test lasts; the setting of the process stays as it was."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """JAX's persistent cache, in one folder for all tests that train the same networks."""
    base = tmp_path_factory.getbasetemp()
    several = "PYTEST_XDIST_WORKER" in os.environ  # whose folders lie side by side
    folder = (base.parent if several else base) / "convjax-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVJAX_CACHE_DIR", os.environ.get("CONVJAX_CACHE_DIR", str(folder)))
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()
        use_compilation_cache()
        yield
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def small_chunks():
    """Chunks of four steps: nine steps are two whole ones and a remainder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_loop, "CHUNK_STEPS", 4)
        yield


@pytest.fixture(scope="module")
def run(small_chunks):
    """One training in float32, which many tests look at."""
    return trainings.Run()
