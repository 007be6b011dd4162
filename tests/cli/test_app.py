import subprocess
import sys

import pytest
from typer.testing import CliRunner

from convjax.cli.app import COMMANDS, app


def invoke(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_help_lists_all_commands_and_imports_no_jax():
    code = (
        "import sys; sys.argv = ['convjax', '--help']\n"
        "from convjax.__main__ import main\n"
        "try: main()\n"
        "finally: print('jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    for name, (_, _, summary) in COMMANDS.items():
        assert f" {name} " in done.stdout
        assert summary in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_the_help_of_its_function(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0, result.output
    assert f"{name} [OPTIONS]" in result.stdout
    assert "--help" in result.stdout


def test_version_is_that_of_the_package():
    from importlib.metadata import version

    assert invoke("--version").stdout == f"convjax {version('convjax')}\n"


def test_unknown_command_is_answered_with_a_near_one():
    result = invoke("explor")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: No such command 'explor'. Did you mean 'explore'")


def test_program_without_typer_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None\nfrom convjax.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == 'error: the command line needs typer: pip install "convjax[cli]"\n'
