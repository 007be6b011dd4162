"""Pieces of HTML for notebooks: headings, tables and pictures.

Each is well-formed by itself, needs no script and no style sheet, and takes the colours of the page
around it, light or dark. Text is escaped.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax.report.html import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Notebooks have styles of their own for tables; what matters is said here again. The line is grey
# that shows on white and on black.
_CELL = "padding:0.15em 0.9em 0.15em 0;vertical-align:top;white-space:pre-wrap;"
_LINE = "border:0;border-bottom:1px solid rgba(128,128,128,0.45);"


def title(kind: str, about: str) -> str:
    """Returns the line that says what one looks at."""
    return f"<div><strong>{escape(kind)}</strong>: {escape(about)}</div>"


def paragraph(text: str) -> str:
    """Returns a text of its own."""
    return f'<p style="margin:0.4em 0">{escape(text)}</p>'


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table; a column of numbers and None alone has these to the right.

    Args:
      headings: one per column.
      rows: cells, see `text`.
    """
    rows = [list(row) for row in rows]
    columns = list(zip(*rows, strict=True)) or [()] * len(headings)
    sides = ["right" if all(map(_is_number, column)) else "left" for column in columns]

    def line(tag: str, cells: Sequence[Any]) -> str:
        return "".join(
            f'<{tag} style="{_CELL}{_LINE}text-align:{side}">{escape(text(cell))}</{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    body = "".join(f'<tr style="background:none">{line("td", row)}</tr>' for row in rows)
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:0.4em 0;'
        'font-variant-numeric:tabular-nums">'
        f"<thead><tr>{line('th', headings)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def text(value: Any) -> str:
    """Returns a cell: counts with commas, other numbers with four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.4g}" if math.isfinite(number) else str(number).replace("nan", "NaN")
    return str(value)


def pictures(*figures: "tuple[str, Callable[[], Figure]]") -> str:
    """Returns pictures one below the other; without matplotlib how to get it.

    Args:
      figures: what a reader who cannot see a picture is told, and the function that draws it.
    """
    try:
        return "".join(_image(words, draw()) for words, draw in figures)
    except ImportError as error:
        return paragraph(str(error))


def _image(words: str, figure: "Figure") -> str:
    # The ink of a picture is dark: it brings its paper with it.
    return (
        f'<div><img alt="{escape(words)}" src="{picture(figure, dpi=90)}" '
        'style="max-width:100%;background:white;border-radius:4px;margin:0.3em 0"/></div>'
    )


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return value is None or (number and not isinstance(value, bool))
