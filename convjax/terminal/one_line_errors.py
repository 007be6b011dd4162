"""Errors of usage as one line, like all other mistakes.

Typer prints a box of several lines. For a wrong value it prints the message of the library that
checks it, without the value.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from convjax.terminal.closed_output import STATUS_CLOSED, discard_output

# The base class of all usage errors, of the Click that Typer itself uses.
UsageError: Any = typer.BadParameter.__mro__[1]

# Words of the library that checks values, and their replacements.
_WORDS = {"Value error, ": "", "Input should be": "it must be"}


class _OneLine:
    """A command that prints an error of usage as one line and exits with status 2."""

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
        warnings.showwarning = _show_warning
        with _end_of_output():
            try:
                status = run.main(args, *rest, standalone_mode=False, **more)
            except UsageError as error:
                _exit_with(error, given)
            except typer.Abort:
                sys.exit(1)
            sys.exit(status if isinstance(status, int) else 0)


_show_as_python = warnings.showwarning


def _show_warning(message: Any, category: Any, *place: Any, **more: Any) -> None:
    """Prints what a user should know as one line, without the place in the code."""
    if category is UserWarning:
        typer.echo(f"warning: {message}", err=True)
    else:
        _show_as_python(message, category, *place, **more)


@contextmanager
def _end_of_output() -> Iterator[None]:
    """Ends a program whose output has no reader any more, or no room, quietly or with one line."""
    try:
        try:
            yield
        except SystemExit as ended:
            # Typer ends with status 1 for it, and with a traceback for the others.
            if isinstance(ended.__context__, BrokenPipeError):
                raise ended.__context__ from None
            if sys.stdout is not None:
                sys.stdout.flush()  # Python would do so last, and report what fails
            raise
    except BrokenPipeError:
        discard_output()
        sys.exit(STATUS_CLOSED)
    except OSError as error:
        discard_output()
        typer.echo(f"error: the output cannot be written: {error.strerror or error}.", err=True)
        sys.exit(2)


class OneLineGroup(_OneLine, TyperGroup):
    """The commands of a program: `typer.Typer(cls=OneLineGroup)`."""


class OneLineCommand(_OneLine, TyperCommand):
    """A program of one command: `app.command(cls=OneLineCommand)`."""


def _exit_with(error: Any, given: Sequence[str]) -> NoReturn:
    if type(error).__name__ == "NoArgsIsHelpError":  # prints the help
        error.show()
        sys.exit(error.exit_code)
    text = " ".join(error.format_message().split()).rstrip(".")
    for words, replacement in _WORDS.items():
        text = text.replace(words, replacement)
    value = _value(getattr(error, "param", None), given)
    got = f", got {value!r}" if value is not None and repr(value) not in text else ""
    program = error.ctx.command_path if error.ctx else "--help"
    end = "" if text.endswith("?") else "."
    typer.echo(f"error: {text}{got}{end} See `{program} --help`.", err=True)
    sys.exit(error.exit_code)


def _value(param: Any, given: Sequence[str]) -> str | None:
    """Returns the value given for an option, None if it cannot be found."""
    for name in getattr(param, "opts", ()):
        for i, word in enumerate(given):
            if word == name and i + 1 < len(given):
                return given[i + 1]
            if word.startswith(f"{name}="):
                return word.removeprefix(f"{name}=")
    return None
