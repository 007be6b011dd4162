"""The frame of a command: mistakes as one line, and a new file for its results."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table as RichTable

from convjax.io.atomic import atomic_write
from convjax.io.json_files import write_json
from convjax.terminal.console import console, print_line
from convjax.terminal.dataclass_options import option_name
from convjax.terminal.early_interrupt import interrupts_raised

NOTHING_WRITTEN = "stopped; nothing was written."

# Folders that `prepare_file` created for the results of the running command.
_created: ContextVar[list[Path] | None] = ContextVar("created", default=None)


def measure_to_file(
    out: Path,
    measure: Callable[[Console], dict[str, Any]],
    tables: Callable[[dict[str, Any]], Sequence[RichTable | str]],
) -> dict[str, Any]:
    """Measures, writes the report to a new JSON file, prints its tables, and returns it.

    Args:
      out: the new file.
      measure: returns the report; it may print on the console meanwhile.
      tables: returns the tables of the report, for rich or in Markdown; the report's "notes", if
        any, are printed below them.
    """
    shown = console()
    with mistakes_reported(NOTHING_WRITTEN):
        prepare_file(out)
        report = measure(shown)
        write_json(out, report)
    for table in tables(report):
        if isinstance(table, str):
            print_line(shown, table)
        else:
            shown.print(table)
    for note in report.get("notes", []):
        print_line(shown, f"note: {note}")
    print_line(shown, f"all figures: {out}")
    return report


@contextmanager
def mistakes_reported(
    interrupted: str,
    *,
    fields: Collection[str] = (),
    elsewhere: str = "choose another --out",
) -> Iterator[None]:
    """Turns a user's mistake into one line and exit status 2, and an interrupt into status 130.

    Mistakes are ValueError (wrong arguments or data; DataError is one), OSError (such as a full
    disk) and ImportError (an extra that is not installed). After any of them, the folders that
    `prepare_file` created are removed.

    Args:
      interrupted: the message after an interrupt.
      fields: names of arguments that are options of the command: a message that begins with one of
        them names the option instead.
      elsewhere: the fix for a place that cannot be written.
    """
    created: list[Path] = []
    token = _created.set(created)
    try:
        with interrupts_raised(), _removed_on_error(created):
            yield
    except BrokenPipeError:  # the reader of the output has ended, as after `| head`
        raise
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        typer.echo(
            f"error: cannot read or write{where}: {error.strerror or error}. If results go there, "
            f"{elsewhere}, or make it writable and free the disk.",
            err=True,
        )
        raise typer.Exit(2) from None
    except ModuleNotFoundError as error:
        # Messages of this project already say how to install what is missing.
        fix = "" if "pip install" in str(error) else ': pip install "convjax[all]"'
        typer.echo(f"error: {error}{fix}", err=True)
        raise typer.Exit(2) from None
    except (ValueError, ImportError) as error:
        typer.echo(f"error: {_with_option_names(str(error), fields)}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(interrupted, err=True)
        raise typer.Exit(130) from None
    finally:
        _created.reset(token)


def prepare_file(out: Path) -> None:
    """Creates the folder of a new file and checks that the file can be written.

    Called before the work, so that a mistake is reported before it.

    Raises:
      ValueError: if the path exists, or lies below a file.
      OSError: if the file cannot be written.
    """
    if out.is_dir():
        raise ValueError(f"--out must be a file, got the folder {out}. Add the file's name.")
    if out.exists():
        raise ValueError(f"--out must be a new file, got {out}. Choose another, or remove it.")
    missing = []
    for folder in out.parents:
        if folder.is_dir():
            break
        if folder.exists():
            raise ValueError(
                f"--out must lie in a folder, got {out}, but {folder} is a file. Choose another."
            )
        missing.append(folder)
    trial = out.with_name(f".{out.name}.trial")
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            created = _created.get()
            if created is not None:
                created.append(folder)
        with atomic_write(trial):
            pass
        trial.unlink()
    except OSError as error:
        # Name the requested file, not the trial.
        raise OSError(error.errno, error.strerror, str(out)) from error


@contextmanager
def _removed_on_error(created: list[Path]) -> Iterator[None]:
    try:
        yield
    except typer.Exit:
        raise  # a verdict: its results are in the folder
    except BaseException:
        for folder in reversed(created):
            with suppress(OSError):  # another program has put a file there
                folder.rmdir()
        raise


def _with_option_names(message: str, fields: Collection[str]) -> str:
    """Returns a message of the library with the names of arguments replaced by the options.

    Only at places where a message names an argument: a path may contain the same words.
    """
    first, _, rest = message.partition(" ")
    if first in fields:
        return f"{option_name(first)} {rest}"
    message = re.sub(r"^name_or_path\b", "--data", message)
    return re.sub(r"(?<![\w/.'\"-])data_dir(?![\w/'\"-])", "--data-dir", message)
