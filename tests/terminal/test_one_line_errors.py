"""Errors of usage as one line, tested with small commands."""

import subprocess
import sys
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from convjax.terminal.one_line_errors import OneLineCommand, OneLineGroup

program = typer.Typer(cls=OneLineGroup, no_args_is_help=True)
alone = typer.Typer()


@program.command()
@alone.command(cls=OneLineCommand)
def count(
    name: str,
    number: Annotated[int, typer.Option("--number", "-n", min=1)] = 1,
    kind: Literal["long", "short"] = "long",
    status: int = 0,
) -> None:
    print(name * number, kind)
    raise typer.Exit(status)


@program.command()
def other() -> None:
    raise typer.Abort


def invoke(*words, app=program):
    """Returns the exit status, stdout and stderr of a command."""
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["coutn", "x"], "error: No such command 'coutn'. Did you mean 'count'? See `root --help`"),
        (["count"], "error: Missing argument"),
        (["count", "x", "--numbr", "1"], "error: No such option: --numbr"),
        (["count", "x", "-n", "two"], "'--number' / '-n': it must be a valid integer"),
        (["count", "x", "--number=two"], "got 'two'. See `root count --help`"),
        (["count", "x", "-n", "0"], "it must be greater than or equal to 1, got '0'."),
        (["count", "x", "--kind", "wide"], "'--kind': 'wide' is not one of 'long', 'short'."),
        (["count", "x", "--kind"], "--kind"),
        (["count", "x", "y"], "error: Got unexpected extra argument"),
    ],
)
def test_one_line_group_reports_an_error_of_usage(words, message):
    status, output, text = invoke(*words)
    assert (status, output) == (2, "")
    assert message in text
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "Value error" not in text


def test_one_line_commands_run_correct_usage_unchanged():
    assert invoke("count", "x", "-n", "2") == (0, "xx long\n", "")
    assert invoke("count", "x", "--status", "1")[0] == 1
    assert invoke("other")[0] == 1
    assert "Usage" in invoke("--help")[1]
    assert invoke("x", "--kind", "short", app=alone) == (0, "x short\n", "")
    status, _, text = invoke("x", "-n", "0", app=alone)
    assert status == 2
    assert text.count("\n") == 1
    result = CliRunner().invoke(program, [])
    assert "Usage" in result.output


def test_warnings_for_users_are_one_line():
    code = (
        "import sys, warnings, typer\n"
        "from convjax.terminal.one_line_errors import OneLineCommand\n"
        "app = typer.Typer()\n"
        "@app.command(cls=OneLineCommand)\n"
        "def run():\n"
        "    warnings.warn('pixels are black.')\n"
        "    warnings.warn('old', FutureWarning)\n"
        "app()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stderr.splitlines()[:2]
    assert first == "warning: pixels are black."
    assert "FutureWarning: old" in second
