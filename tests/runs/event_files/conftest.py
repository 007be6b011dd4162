"""Event files are read back by TensorBoard itself."""

import sys
import types

import pytest


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch):
    """Makes TensorBoard read without TensorFlow, as where TensorFlow is not installed."""
    name = "tensorboard.compat.notf"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


@pytest.fixture
def read(tmp_path):
    """Reads a folder of event files as TensorBoard does, without sampling."""
    from tensorboard.backend.event_processing import event_accumulator as library

    def of(folder=tmp_path):
        everything = library.STORE_EVERYTHING_SIZE_GUIDANCE
        return library.EventAccumulator(str(folder), size_guidance=everything).Reload()

    return of
