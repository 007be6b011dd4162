"""The HTML table of pages and notebooks, and the text of its cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

MISSING = "–"  # in place of a number that does not exist

# Notebooks have their own styles for tables, and a fragment in a notebook has no style sheet. The
# grey of the lines is visible on white and on black.
_TABLE_STYLE = "border-collapse:collapse;margin:0.4em 0;font-variant-numeric:tabular-nums"
_CELL_STYLE = (
    "padding:0.15em 0.9em 0.15em 0;vertical-align:top;white-space:pre-wrap;font-weight:{weight};"
    "border:0;border-bottom:1px solid rgba(128,128,128,0.45);text-align:{side}"
)


class Share(float):
    """A share from 0 to 1, which a table shows in percent."""


@dataclass(frozen=True)
class Table:
    """A table with a caption. Columns of numbers are aligned to the right.

    Attributes:
      caption: above the table; may be empty in a notebook.
      head: titles of the columns.
      rows: the cells, values that `format_value` takes; the first of a row is its title.
      exact: numbers have all their digits.
      kind: the name of the template's macro.

    Examples:
      >>> from convjax.report.table import Table
      >>> table = Table("Layers", ("layer", "values"), [("conv1", 12544)])
      >>> table.numeric
      [False, True]
      >>> "<td class=\\"number\\">12,544</td>" in table.html()
      True
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    exact: bool = False
    kind: str = "table"

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers alone, apart from missing ones."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.head)
        return [
            all(_is_number(cell) or cell == MISSING for cell in column)
            and any(_is_number(cell) for cell in column)
            for column in columns
        ]

    def html(self, *, inline: bool = False) -> str:
        """Returns the table as HTML.

        Args:
          inline: write the styles into the elements, for a notebook; otherwise the elements have
            the classes of report.css.

        Raises:
          ValueError: if a row has more or fewer cells than the head.
        """

        def cell(tag: str, scope: str, value: Any, number: bool) -> str:
            attributes = f' scope="{scope}"' if scope else ""
            if inline:
                side, weight = "right" if number else "left", 600 if scope == "col" else 400
                attributes += f' style="{_CELL_STYLE.format(side=side, weight=weight)}"'
            elif number:
                attributes += ' class="number"'
            text = format_value(value, exact=self.exact)
            return f"<{tag}{attributes}>{escape(text)}</{tag}>"

        numeric = self.numeric
        head = "".join(cell("th", "col", *pair) for pair in zip(self.head, numeric, strict=True))
        lines = []
        for row in self.rows:
            first, *rest = zip(row, numeric, strict=True)
            cells = cell("th", "row", *first) + "".join(cell("td", "", *pair) for pair in rest)
            lines.append(
                f'<tr style="background:none">{cells}</tr>' if inline else f"<tr>{cells}</tr>"
            )
        side = ' style="text-align:left"' if inline else ""
        caption = f"<caption{side}>{escape(self.caption)}</caption>" if self.caption else ""
        frame, table = ' style="overflow-x:auto"', f' style="{_TABLE_STYLE}"'
        if not inline:
            label = escape(self.caption)
            frame = f' class="scrolls" tabindex="0" role="region" aria-label="{label}"'
            table = ""
        return (
            f"<div{frame}><table{table}>{caption}<thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )


def format_value(value: Any, *, exact: bool = False) -> str:
    """Returns the text of plain data, as tables show it.

    Args:
      value: text, a number, True, False, None, or a list or mapping of these.
      exact: all digits of a number, without thousands separators; otherwise a float has four
        significant digits and a count has commas.

    Examples:
      >>> from convjax.report.table import format_value
      >>> format_value(12345), format_value(0.13085988), format_value(float("nan"))
      ('12,345', '0.1309', 'NaN')
      >>> format_value({"lr": 0.06, "sizes": [1, 2000]}, exact=True)
      'lr 0.06, sizes 1, 2000'
    """
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        items = (f"{name} {format_value(item, exact=exact)}" for name, item in value.items())
        return ", ".join(items) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item, exact=exact) for item in value) or "none"
    if isinstance(value, Share):
        return f"{100 * value:.1f} %"
    if isinstance(value, int | np.integer):
        return str(int(value)) if exact else f"{int(value):,}"
    if isinstance(value, float | np.floating):
        return _format_float(float(value), exact)
    return str(value)


def _format_float(value: float, exact: bool) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else str(value)
    if exact:
        return repr(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool)
