"""Fixtures of all tests. Float64 is on only where a test requests it."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from convjax.terminal.compilation_cache import use_compilation_cache
from convjax.train import scan_loop
from tests import trainings

collect_ignore = ["typed_script.py"]  # is for a type checker; --doctest-modules would run it

# The command line turns on JAX's persistent cache for the whole process. Only the tests of the
# experiments use it; all others compile what they test.
jax.config.update("jax_enable_compilation_cache", False)

# Most of the tests' time is compilation, which takes half as long without LLVM's optimisations.
# They are on in all processes that tests start, and in .ci/run on Python 3.12.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)

# Before JAX looks for devices, so that tests can split a training over several.
jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture
def x64():
    """Float64 during the test; the setting of the process is restored."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """JAX's persistent cache in one folder, for tests that train the same networks."""
    base = tmp_path_factory.getbasetemp()
    several = "PYTEST_XDIST_WORKER" in os.environ  # workers have sibling folders
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
    """Chunks of four steps: nine steps are two chunks and a remainder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_loop, "CHUNK_STEPS", 4)
        yield


@pytest.fixture(scope="module")
def run(small_chunks):
    """One training in float32 that many tests share."""
    return trainings.Run()
