"""Wrong usage of the command line, told in one line as every other mistake is.

Typer draws a box of several lines, and where a value is wrong it passes on the words of the library
that checks it, without the value.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

# The common ancestor of all that Typer raises for wrong usage, whichever Click it brings along.
UsageError: Any = typer.BadParameter.__mro__[1]


# What the library that checks values says, as a pattern, and what we say.
_WORDS = {
    "Value error, ": "",
    "Input should be a valid integer.*": "it must be a whole number",
    "Input should be a valid number.*": "it must be a number",
    "Input should be greater than or equal to": "it must be at least",
    "Input should be": "it must be",
}


class _OneLine:
    """Commands that tell wrong usage in one line and end with exit status 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        *rest: Any,
        standalone_mode: bool = True,
        **more: Any,
    ) -> Any:
        run: Any = super()
        if not standalone_mode:
            return run.main(args, *rest, standalone_mode=False, **more)
        given = list(sys.argv[1:] if args is None else args)
        try:
            status = run.main(args, *rest, standalone_mode=False, **more)
        except UsageError as error:
            _tell(error, given)
        except typer.Abort:
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


class OneLineGroup(_OneLine, TyperGroup):
    """The commands of a program: `typer.Typer(cls=OneLineGroup)`."""


class OneLineCommand(_OneLine, TyperCommand):
    """A program of one command: `app.command(cls=OneLineCommand)`."""


def _tell(error: Any, given: Sequence[str]) -> NoReturn:
    if type(error).__name__ == "NoArgsIsHelpError":  # no mistake, but a question
        error.show()
        sys.exit(error.exit_code)
    text = " ".join(error.format_message().split()).rstrip(".")
    for theirs, ours in _WORDS.items():
        text = re.sub(theirs, ours, text)
    value = _value(getattr(error, "param", None), given)
    got = f", got {value!r}" if value is not None and repr(value) not in text else ""
    program = error.ctx.command_path if error.ctx else "--help"
    end = "" if text.endswith("?") else "."
    typer.echo(f"error: {text}{got}{end} `{program} --help` shows what there is.", err=True)
    sys.exit(error.exit_code)


def _value(param: Any, given: Sequence[str]) -> str | None:
    """Returns what was given for an option, None where it cannot be told."""
    for name in getattr(param, "opts", ()):
        for i, word in enumerate(given):
            if word == name and i + 1 < len(given):
                return given[i + 1]
            if word.startswith(f"{name}="):
                return word.removeprefix(f"{name}=")
    return None
