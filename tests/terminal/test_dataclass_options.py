"""Options that are declared as fields of dataclasses."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from convjax.terminal.dataclass_options import option_names, option_words, options_from


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, "Help of size."] = 3
    kind: Annotated[str | None, "Help of kind."] = None
    not_an_option: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Annotated[Inner, "Panel of inner"] = Inner()
    rate: Annotated[float, typer.Option(help="Help of rate.", min=0)] = 0.5


@dataclass(frozen=True)
class Other:
    dry_run: Annotated[bool, "Help of dry run."] = False
    json_lines: Annotated[bool, typer.Option("--json", help="Help of json.")] = False


@pytest.fixture
def invoke():
    """Runs a command with the options; returns its result and what the command received."""
    app, received = typer.Typer(pretty_exceptions_enable=False), {}

    @app.command()
    @options_from(Outer, Other)
    def command(line):
        """Help of the command."""
        received.update(given=line.given(Outer), other=line.build(Other))

    return lambda *words: (CliRunner().invoke(app, words), received)


def test_option_names_include_nested_fields():
    assert option_names(Outer) == ["size", "kind", "rate"]


def test_options_from_gives_only_what_is_on_the_command_line(invoke):
    result, received = invoke("--size", "3", "--dry-run")
    assert result.exit_code == 0, result.output
    assert received == {"given": {"size": 3}, "other": Other(dry_run=True)}
    assert invoke("--json", "--rate", "1")[1] == {
        "given": {"rate": 1.0},
        "other": Other(json_lines=True),
    }


def test_options_from_keeps_types_bounds_and_names(invoke):
    assert invoke("--size", "x")[0].exit_code == 2
    assert invoke("--rate", "-1")[0].exit_code == 2
    assert invoke("--not-an-option", "1")[0].exit_code == 2
    assert invoke("--no-dry-run")[0].exit_code == 2


def test_options_from_shows_help_and_panels(invoke):
    text = invoke("--help")[0].output
    for part in ("Help of the command.", "Help of size.", "Panel of inner", "Help of json."):
        assert part in text


def test_option_words_are_those_of_a_command_line():
    words = option_words({"save_seconds": 2.0, "stream": True})
    assert words == ["--save-seconds", "2.0", "--stream"]
