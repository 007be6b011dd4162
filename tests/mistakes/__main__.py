"""Prints the tables of mistakes with their messages in Markdown: `python -m tests.mistakes`."""

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from tests.helpers import command_app
from tests.mistakes import commands, damaged, library


def main() -> None:
    """Makes every mistake in a temporary folder, and prints its message."""
    for title, rows in (
        ("Command line", _of_commands()),
        ("Python", _of_library()),
        ("Damaged run folders", _of_runs()),
    ):
        print(f"\n## {title}\n\n| mistake | message |\n|---|---|")
        for what, message in rows:
            print(f"| `{what}` | {_cell(message)} |")


def _of_commands() -> Iterator[tuple[str, str]]:
    for mistake in commands.ROWS:
        with _temporary_folder() as folder:
            commands.make_files(folder)
            words = shlex.split(mistake.what)
            program, app = command_app(words[0] if words else "")
            result = CliRunner().invoke(app, words, prog_name=program)
            yield mistake.what, result.stderr


def _of_library() -> Iterator[tuple[str, str]]:
    for mistake in library.ROWS:
        with _temporary_folder() as folder:
            library.make_files(folder)
            try:
                library.run(mistake.what)
            except Exception as error:
                yield mistake.what, f"{type(error).__name__}: {error}"


def _of_runs() -> Iterator[tuple[str, str]]:
    with _temporary_folder() as folder:
        damaged.make_run(folder / "valid")
        yield from _damages(folder / "valid")


def _damages(valid: Path) -> Iterator[tuple[str, str]]:
    for mistake in damaged.ROWS:
        with _temporary_folder():
            shutil.copytree(valid, "run")
            damaged.DAMAGES[mistake.what](Path("run"))
            try:
                damaged.load(Path("run"))
            except Exception as error:
                yield mistake.what, f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Changes to a temporary folder, with a cache in it."""
    before = os.environ.get("CONVJAX_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["CONVJAX_CACHE_DIR"] = str(Path(folder) / "cache")
        yield Path(folder)
    os.environ.pop("CONVJAX_CACHE_DIR")
    if before is not None:
        os.environ["CONVJAX_CACHE_DIR"] = before


def _cell(message: str) -> str:
    return " ".join(message.split()).replace("|", "\\|").replace(str(Path.cwd()), "…")


if __name__ == "__main__":
    main()
