"""Mistakes on purpose: what careless users do, and what they must be told.

Tables of rows, which the tests go through and `python -m tests.mistakes` prints with the messages.
To add a row, write what a user would type and what the message must hold: the argument, the value
that was received, and the rule or the way out.
"""

from typing import NamedTuple


class Mistake(NamedTuple):
    """A mistake and what must come of it.

    Attributes:
      what: the Python expression, or the words after `python -m experiments`, that a user types.
      kind: of the exception; None for a command, which ends with exit status 2.
      holds: what the message must hold, each somewhere.
    """

    what: str
    kind: type[Exception] | None
    holds: tuple[str, ...]


def check_message(message: str, mistake: Mistake) -> None:
    """Fails if a message lacks what it must hold, or shows what is none of a user's business."""
    missing = [part for part in mistake.holds if part not in message]
    assert not missing, f"{message!r} lacks {missing}"
    assert "Traceback" not in message
    assert "Input should" not in message  # pydantic's words
    assert "\n" not in message.strip(), f"more than one line: {message!r}"
