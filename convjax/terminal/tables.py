"""Tables, each written once for the terminal and for Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable


@dataclass
class TextTable:
    """Headings and rows of text.

    Attributes:
      headings: of the columns.
      rows: one text per column.
      title: above the table on a terminal.
      left: number of columns, from the left, that are aligned left on a terminal; the others are
        aligned right. Default: all columns.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None
    left: int | None = None

    def markdown(self, *, rule: str = "---") -> str:
        """Returns the table in Markdown; a line break within a cell becomes `<br>`.

        Args:
          rule: what stands below each heading.
        """
        lines = [_markdown_row(self.headings), f"|{rule}" * len(self.headings) + "|"]
        return "\n".join([*lines, *map(_markdown_row, self.rows)])

    def rich(
        self, *, lines: bool = False, narrow: Iterable[str] = (), frame: bool = True
    ) -> RichTable:
        """Returns the table for a terminal; cells may hold rich's markup.

        Args:
          lines: whether lines separate the rows.
          narrow: headings of columns that are never wrapped.
          frame: whether lines surround the cells; otherwise two spaces separate the columns.
        """
        table = RichTable(title=self.title, show_lines=lines)
        if not frame:
            table.box, table.padding, table.pad_edge = None, (0, 2, 0, 0), False
        left = len(self.headings) if self.left is None else self.left
        for i, heading in enumerate(self.headings):
            table.add_column(
                heading,
                justify="left" if i < left else "right",
                overflow="fold",
                no_wrap=heading in set(narrow),
            )
        for row in self.rows:
            table.add_row(*row)
        return table


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("\n", "<br>")
