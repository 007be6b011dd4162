"""Options and manners that commands have in common."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

from convjax.io.atomic import atomic_write

Data = Annotated[
    str, typer.Option(help="mnist5k (embedded), mnist, cifar10, fashion_mnist, or a folder.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the IDX files of mnist (default: $CONVJAX_DATA_DIR), or with images of "
        "cifar10."
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        help="Order of the axes in the networks: NHWC, NCHW, CHWN, or auto (CHWN on CPU, NHWC "
        "elsewhere)."
    ),
]
OutFile = Annotated[Path, typer.Option(help="New file for all figures.")]


# Folders that `prepare_file` made for a command's results.
_made: ContextVar[list[Path] | None] = ContextVar("made", default=None)


@contextmanager
def mistakes_reported(
    stopped: str,
    *,
    fields: Collection[str] = (),
    elsewhere: str = "choose another --out",
) -> Iterator[None]:
    """Turns a user's mistake into one line and exit status 2, and an interrupt into 130.

    ValueError: arguments and data that cannot be (DataError is such); OSError: a full disk;
    ImportError: an extra that is not installed, and how to get it. The folders that were made for
    results that did not come are removed.

    Args:
      stopped: what an interrupt answers.
      fields: of a configuration, each named by an option: a message that begins with one begins
        with the option instead.
      elsewhere: how results go to another place than one that cannot be written.
    """
    made: list[Path] = []
    before = _made.set(made)
    try:
        with _removed_unless_done(made):
            yield
    except BrokenPipeError:  # who read what is printed is gone, as after `| head`: Click ends it
        raise
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        typer.echo(
            f"error: cannot read or write{where}: {error.strerror or error}. Where results are to "
            f"go there, {elsewhere}, or make it writable and free the disk.",
            err=True,
        )
        raise typer.Exit(2) from None
    except ModuleNotFoundError as error:
        # Where a library of ours is asked, its message says how to get it.
        hint = "" if "pip install" in str(error) else ': pip install "convjax[experiments]"'
        typer.echo(f"error: {error}{hint}", err=True)
        raise typer.Exit(2) from None
    except (ValueError, ImportError) as error:
        typer.echo(f"error: {_with_options(str(error), fields)}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(stopped, err=True)
        raise typer.Exit(130) from None
    finally:
        _made.reset(before)


@contextmanager
def _removed_unless_done(made: list[Path]) -> Iterator[None]:
    try:
        yield
    except typer.Exit:
        raise  # a verdict, which has its results
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):  # somebody else's file has come there
                folder.rmdir()
        raise


def _with_options(text: str, fields: Collection[str]) -> str:
    """Returns an error of the library with its arguments' names as those of the options.

    Only where they stand for arguments: a path may hold the same words.
    """
    first, _, rest = text.partition(" ")
    if first in fields:
        return f"--{first.replace('_', '-')} {rest}"
    for name, option in (("name_or_path:", "--data:"), ("data_dir:", "--data-dir:")):
        if text.startswith(name):
            text = option + text.removeprefix(name)
    for words in (": correct data_dir", "leave data_dir out", "as data_dir"):
        text = text.replace(words, words.replace("data_dir", "--data-dir"))
    return text


def prepare_file(out: Path) -> None:
    """Makes the folder of a file, so that a mistake shows before the work.

    Raises:
      ValueError: if it is there already, or is a folder.
      OSError: if nothing can be written there.
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
            made = _made.get()
            if made is not None:
                made.append(folder)
        with atomic_write(trial):
            pass
        trial.unlink()
    except OSError as error:
        # The file that was asked for, and not the one that was tried.
        raise OSError(error.errno, error.strerror, str(out)) from error
