from importlib import metadata

import jax
from typer.testing import CliRunner

from convjax.cli.app import app
from convjax.cli.doctor import installed_extras, slow_settings


def test_doctor_prints_versions_devices_and_extras():
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert f"jax        {jax.__version__}" in lines
    assert f"numpy      {metadata.version('numpy')}" in lines
    assert any(f"{len(jax.devices())} × cpu (cpu)" in line for line in lines)
    assert "plots        installed" in lines
    # The tests compile programs that are hardly optimised.
    note = "- programs are hardly optimised: unset JAX_DISABLE_MOST_OPTIMIZATIONS"
    assert (note in lines) == jax.config.values["jax_disable_most_optimizations"]


def test_installed_extras_names_what_is_missing(monkeypatch):
    required = [
        "jax>=0.10",
        'matplotlib>=3.8; extra == "plots"',
        'no-such-package>=1; extra == "plots"',
        'mlxtend>=0.23; extra == "data"',
        'tensorflow-cpu; (sys_platform == "nowhere") and extra == "tfds"',
        'pytest; extra == "test"',
        'convjax[data]; extra == "all"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    assert installed_extras() == {"plots": ["no-such-package"], "data": [], "tfds": []}
    monkeypatch.setattr(metadata, "requires", lambda name: None)
    assert installed_extras() == {}


def test_slow_settings_names_each_setting():
    assert slow_settings({"jax_disable_jit": False, "jax_enable_x64": False}, "cpu", 0) == []
    found = slow_settings({"jax_debug_nans": True, "jax_enable_x64": True}, "gpu", 2)
    assert [note.partition(":")[0] for note in found] == [
        "every result is checked for NaN",
        "numbers are of 64 bits by default",
    ]
    (unused,) = slow_settings({}, "cpu", 8)
    assert "there are 8 NVIDIA GPUs" in unused
    assert 'pip install "jax[cuda13]"' in unused
