"""The manners of all commands, by commands of the tests' own."""

from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from experiments.terminal.one_line_errors import OneLineCommand, OneLineGroup
from experiments.terminal.options import mistakes_reported, prepare_file

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


def said(*words, app=program):
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["coutn", "x"], "error: No such command 'coutn'. Did you mean 'count'? `root --help`"),
        (["count"], "error: Missing argument"),
        (["count", "x", "--numbr", "1"], "error: No such option: --numbr"),
        (["count", "x", "-n", "two"], "'--number' / '-n': it must be a whole number, got 'two'."),
        (["count", "x", "--number=two"], "got 'two'. `root count --help`"),
        (["count", "x", "-n", "0"], "it must be at least 1, got '0'."),
        (["count", "x", "--kind", "wide"], "'--kind': 'wide' is not one of 'long', 'short'."),
        (["count", "x", "--kind"], "--kind"),
        (["count", "x", "y"], "error: Got unexpected extra argument"),
    ],
)
def test_wrong_usage_is_told_in_one_line(words, message):
    status, output, text = said(*words)
    assert (status, output) == (2, "")
    assert message in text
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "Value error" not in text


def test_right_usage_is_as_it_was():
    assert said("count", "x", "-n", "2") == (0, "xx long\n", "")
    assert said("count", "x", "--status", "1")[0] == 1
    assert said("other")[0] == 1
    assert "Usage" in said("--help")[1]
    assert said("x", "--kind", "short", app=alone) == (0, "x short\n", "")
    status, _, text = said("x", "-n", "0", app=alone)
    assert status == 2
    assert text.count("\n") == 1
    result = CliRunner().invoke(program, [])
    assert "Usage" in result.output


def ending(error, out, *, leaving=()):
    """A command that makes room for its results and then ends."""
    with mistakes_reported("stopped"):
        prepare_file(out)
        assert out.parent.is_dir()
        for path in leaving:
            path.touch()
        raise error


@pytest.mark.parametrize("error", [ValueError("no"), OSError("full"), KeyboardInterrupt()])
def test_folders_for_results_that_did_not_come_are_removed(error, tmp_path):
    with pytest.raises(typer.Exit):
        ending(error, tmp_path / "a" / "b" / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_nobody_reads_on(tmp_path):
    """As after `| head`: Click knows what to do, and no disk is full."""
    with pytest.raises(BrokenPipeError):
        ending(BrokenPipeError(), tmp_path / "a" / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_somebody_uses_stay(tmp_path):
    out = tmp_path / "a" / "b" / "out.json"
    with pytest.raises(typer.Exit):
        ending(ValueError("no"), out, leaving=[tmp_path / "a" / "mine"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine"]
    with pytest.raises(typer.Exit):
        ending(typer.Exit(1), out)  # a verdict, which has its results
    assert list(out.parent.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_as_it_was_given(tmp_path, capsys, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device", f"{path}.partial")

    monkeypatch.setattr("experiments.terminal.options.atomic_write", full)
    with pytest.raises(typer.Exit):
        ending(AssertionError("not reached"), tmp_path / "x.json")
    text = capsys.readouterr().err
    assert text.startswith(f"error: cannot read or write {tmp_path}/x.json: No space left on dev")
