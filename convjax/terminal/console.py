"""The console, and lines of text."""

from rich.console import Console


def console() -> Console:
    """Returns a console; in a file or a pipe it is wide enough for the ledger."""
    found = Console()
    return found if found.is_terminal else Console(width=130)


def print_line(console: Console, text: str) -> None:
    """Prints a text as it is: without markup, and not wrapped, so that a path can be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
