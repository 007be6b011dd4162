"""The table of pages, notebooks and terminals, and the text of its cells."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

# What Markdown would interpret within a cell.
_MARKED = re.compile(r"[\\`*|&<>~]|\](?=\()|(?<![^\W_])_|_(?![^\W_])")


class Share(float):
    """A share from 0 to 1, which a table shows in percent."""


@dataclass(frozen=True)
class Table:
    """A table with a caption. Columns of numbers are aligned to the right.

    A long table shows some of its rows and says how many. In HTML the others can be unfolded.

    Attributes:
      caption: above the table; may be empty in a notebook.
      head: titles of the columns.
      rows: the cells, values that `format_value` takes; the first of a row is its title.
      exact: numbers have all their digits.
      shown: indices of the rows shown at first; None shows all.
      what: the rows hold, such as "layers", where not all are shown.
      kind: the name of the template's macro.

    Examples:
      >>> from convjax.report.table import Table
      >>> table = Table("Layers", ("layer", "values"), [("conv1", 12544)])
      >>> table.numeric
      [False, True]
      >>> "<td class=\\"number\\">12,544</td>" in table.html()
      True
      >>> print(table.text())
      Layers
      layer  values
      conv1  12,544
      >>> print(table.markdown())
      **Layers**
      <BLANKLINE>
      | layer | values |
      | :--- | ---: |
      | conv1 | 12,544 |
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    exact: bool = False
    shown: Sequence[int] | None = None
    what: str = "rows"
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

    def text(self) -> str:
        """Returns the table as aligned text of fixed-width letters."""
        short, count = self._short()
        cells, numeric = short._texts(), short.numeric
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, numeric, strict=True)
            ).rstrip()
            for row in cells
        ]
        return "\n".join([self.caption] * bool(self.caption) + lines + count)

    def markdown(self) -> str:
        """Returns the table in GitHub's Markdown."""
        short, count = self._short()
        head, *rows = (list(map(_unmarked, cells)) for cells in short._texts())
        sides = ["---:" if number else ":---" for number in short.numeric]
        lines = [f"| {' | '.join(row)} |" for row in (head, sides, *rows)]
        before = [f"**{_unmarked(self.caption)}**", ""] if self.caption else []
        return "\n".join([*before, *lines, *(["", *count] if count else [])])

    def _texts(self) -> list[list[str]]:
        """Returns the cells of the head and of each row, each in one line."""
        rows = [self.head, *self.rows]
        return [[" ".join(format_value(c, exact=self.exact).split()) for c in row] for row in rows]

    def _short(self) -> "tuple[Table, list[str]]":
        """Returns the table of the shown rows, and a line with their number if it is not all."""
        if self.shown is None or len(self.shown) == len(self.rows):
            return replace(self, shown=None), []
        short = replace(self, rows=[self.rows[i] for i in self.shown], shown=None)
        return short, [f"{len(self.shown):,} of {len(self.rows):,} {self.what}"]

    def html(self, *, inline: bool = False) -> str:
        """Returns the table as HTML.

        Args:
          inline: write the styles into the elements, for a notebook; otherwise the elements have
            the classes of report.css.

        Raises:
          ValueError: if a row has more or fewer cells than the head.
        """
        short, count = self._short()
        if count:
            whole = replace(self, shown=None)
            # A notebook's styles are in each cell, ten times as long as the text.
            folded = f"<pre>{escape(whole.text())}</pre>" if inline else whole.html()
            details = f"<details><summary>{count[0]}; all:</summary>{folded}</details>"
            return short.html(inline=inline) + details

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


def paragraph(text: str) -> str:
    """Returns a paragraph of text as HTML for a notebook."""
    return f'<p style="margin:0.4em 0">{escape(text)}</p>'


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


def _unmarked(text: str) -> str:
    return _MARKED.sub(r"\\\g<0>", text)


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
