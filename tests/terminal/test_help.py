"""The help of every command is light: no command imports JAX for the defaults of its options."""

import json
import subprocess
import sys

import pytest

from convjax.cli.app import COMMANDS
from experiments.cli.app import app

HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "matplotlib", "pandas", "torch")

# Asks for each help in turn in one process, and prints what it printed and what it has imported.
ALL_HELP = """
import contextlib, io, json, runpy, sys
program, heavy, *commands = sys.argv[1:]
found = {}
for command in commands:
    sys.argv = [program, command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        runpy.run_module(program, run_name="__main__")
    loaded = [name for name in heavy.split() if name in sys.modules]
    found[command] = shown.getvalue(), loaded
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("program", "commands"),
    [
        ("convjax", list(COMMANDS)),
        (
            "experiments",
            [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands],
        ),
    ],
)
def test_help_of_every_command_imports_no_jax(program, commands):
    words = [sys.executable, "-c", ALL_HELP, program, " ".join(HEAVY), *commands]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert list(found) == commands
    for command, (shown, loaded) in found.items():
        assert f"{command} [OPTIONS]" in shown, shown
        assert loaded == [], command


def test_heavy_modules_would_be_seen():
    words = [sys.executable, "-c", f"import jax\n{ALL_HELP}", "convjax", " ".join(HEAVY), "train"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["train"][1] == ["jax", "jaxlib"]
