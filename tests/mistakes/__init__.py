"""Tables of users' mistakes with the error messages that must follow.

The tests check every row, and `python -m tests.mistakes` prints all with their messages. To add a
row, write what a user would type and the parts that the message must contain: the argument, the
rule, the value received, and the fix.
"""

from pathlib import Path
from typing import NamedTuple


class Mistake(NamedTuple):
    """A mistake and its error.

    Attributes:
      what: the Python expression, or the words after the name of the program, that a user types.
      kind: class of the exception; None for a command, which ends with exit status 2.
      holds: parts that the message must contain, in any order.
    """

    what: str
    kind: type[Exception] | None
    holds: tuple[str, ...]


def check_message(message: str, mistake: Mistake) -> None:
    """Fails if a message lacks one of its parts, has several lines, or shows internals."""
    missing = [part for part in mistake.holds if part not in message]
    assert not missing, f"{message!r} lacks {missing}"
    assert "Traceback" not in message
    assert "Input should" not in message  # pydantic's words
    assert "\n" not in message.strip(), f"more than one line: {message!r}"


def listing(folder: Path) -> list[tuple[str, int]]:
    """Returns the files and folders below a folder with their sizes, to find changes."""
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))
