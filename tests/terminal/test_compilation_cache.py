"""The tests run in subprocesses, because JAX's settings apply to a whole process."""

import json
import os
import subprocess
import sys

import pytest


def python(code, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


COMPILE = """
import json, jax
from convjax.terminal.compilation_cache import use_compilation_cache
use_compilation_cache()
jax.jit(lambda x: x * 3 + 1)(2.0)
print(json.dumps(jax.config.jax_compilation_cache_dir))
"""


def test_use_compilation_cache_keeps_and_reads_programs(tmp_path):
    def compiled():
        return {path.name for path in (tmp_path / "xla").glob("*-cache")}

    for _ in range(2):
        folder = python(COMPILE, CONVJAX_CACHE_DIR=str(tmp_path))
        assert folder == str(tmp_path / "xla")
    first = compiled()
    assert first
    # A program that was read is not written again under another name.
    python(COMPILE, CONVJAX_CACHE_DIR=str(tmp_path))
    assert compiled() == first
    python(COMPILE.replace("3", "4"), CONVJAX_CACHE_DIR=str(tmp_path))
    assert len(compiled()) > len(first)


def test_use_compilation_cache_respects_jax_settings(tmp_path):
    chosen, ours = tmp_path / "chosen", tmp_path / "ours"
    environment = {"CONVJAX_CACHE_DIR": str(ours), "JAX_COMPILATION_CACHE_DIR": str(chosen)}
    assert python(COMPILE, **environment) == str(chosen)
    assert any(chosen.iterdir())
    assert not ours.exists()
    none = tmp_path / "none"
    python(COMPILE, CONVJAX_CACHE_DIR=str(none), JAX_ENABLE_COMPILATION_CACHE="0")
    assert not any((none / "xla").iterdir())


def test_use_compilation_cache_ignores_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert python(COMPILE, CONVJAX_CACHE_DIR=str(tmp_path / "file")) is None


HEAVY = {"tensorflow", "tensorflow_datasets", "pandas", "torch", "matplotlib", "mlxtend"}
MODULES = """
import json, sys
from typer.testing import CliRunner
from experiments.cli.app import app
result = CliRunner().invoke(app, {arguments})
assert result.exit_code == 0, result.output
print(json.dumps([name for name in {heavy} if name in sys.modules]))
"""


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["list"], set()),
        (["table", "experiments/results/mnist.json"], set()),
        (["parity", "tests/golden/mnist5k_onecycle_batchnorm.npz"], set()),
        (["run", "one-cycle", "--quick", "--out", "OUT"], {"matplotlib"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
@pytest.mark.slow
def test_command_imports_only_what_it_needs(arguments, needed, tmp_path, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    words = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    code = MODULES.format(arguments=words, heavy=sorted(HEAVY))
    assert set(python(code, CONVJAX_CACHE_DIR=str(tmp_path / "cache"))) <= needed
