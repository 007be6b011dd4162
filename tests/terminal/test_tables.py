"""One table for the terminal and for Markdown."""

from rich.console import Console

from convjax.terminal.tables import TextTable

TABLE = TextTable(("name", "value"), [("a", "1\n2"), ("[b]b[/]", "")], "title", left=1)


def test_table_markdown_has_a_rule_and_line_breaks():
    assert TABLE.markdown().splitlines() == [
        "| name | value |",
        "|---|---|",
        "| a | 1<br>2 |",
        "| [b]b[/] |  |",
    ]
    assert TABLE.markdown(rule=" --- ").splitlines()[1] == "| --- | --- |"


def test_table_rich_aligns_columns_and_reads_markup():
    table = TABLE.rich(lines=True, narrow=["name"])
    assert [column.justify for column in table.columns] == ["left", "right"]
    assert [column.no_wrap for column in table.columns] == [True, False]
    assert (table.title, table.show_lines) == ("title", True)
    console = Console(width=40)
    with console.capture() as captured:
        console.print(table)
    assert "[b]" not in captured.get()
