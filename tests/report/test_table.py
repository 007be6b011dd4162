"""The table of pages and notebooks: its cells, its alignment and its escaping."""

from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from convjax.report.table import MISSING, Share, Table, format_value

# XML cannot hold control characters, and no layer has them in its name.
texts = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))


def parsed(html):
    """The elements of a fragment; a tag that is not closed is an error."""
    return ElementTree.fromstring(f"<div>{html}</div>")


def cells(html):
    """The texts of the tables, row by row, headings first."""
    return [["".join(cell.itertext()) for cell in row] for row in parsed(html).iter("tr")]


def sides(html):
    """The alignment of the cells of each row, in a notebook."""
    rows = parsed(html).iter("tr")
    return [[cell.get("style").rpartition("text-align:")[2] for cell in row] for row in rows]


class Texts(HTMLParser):
    """The text that a browser shows, by another parser."""

    def __init__(self, html):
        super().__init__()
        self.found, self.tags = "", set()
        self.feed(html)
        self.close()

    def handle_data(self, data):
        self.found += data

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)


@pytest.mark.parametrize(
    ("value", "short", "exact"),
    [
        (None, "none", "none"),
        (True, "yes", "yes"),
        (np.False_, "no", "no"),
        (12345, "12,345", "12345"),
        (np.int32(-1234), "-1,234", "-1234"),
        (0.13085988895558223, "0.1309", "0.13085988895558223"),
        (np.float32(0.25), "0.25", "0.25"),
        (1e-7, "1e-07", "1e-07"),
        (1.0, "1", "1.0"),
        (1234.56, "1,234.6", "1234.56"),
        (float("nan"), "NaN", "NaN"),
        (float("-inf"), "-inf", "-inf"),
        (Share(0.12345), "12.3 %", "12.3 %"),
        ([1, [2.5]], "1, 2.5", "1, 2.5"),
        ({"lr": 0.5, "sizes": [1, 2000]}, "lr 0.5, sizes 1, 2,000", "lr 0.5, sizes 1, 2000"),
        ({}, "none", "none"),
        ("<b>", "<b>", "<b>"),
        ("3.14159265", "3.14159265", "3.14159265"),
    ],
)
def test_format_value(value, short, exact):
    assert format_value(value) == short
    assert format_value(value, exact=True) == exact


def test_table_aligns_columns_of_numbers_to_the_right():
    rows = [("a", 1, MISSING, 1, Share(0.5)), ("b", 20, 0.5, "?", Share(1))]
    table = Table("numbers", ("name", "count", "share", "mixed", "percent"), rows)
    assert (
        cells(table.html(inline=True))
        == cells(table.html())
        == [
            ["name", "count", "share", "mixed", "percent"],
            ["a", "1", "–", "1", "50.0 %"],
            ["b", "20", "0.5", "?", "100.0 %"],
        ]
    )
    assert sides(table.html(inline=True)) == [["left", "right", "right", "left", "right"]] * 3
    for row in parsed(table.html()).iter("tr"):
        classes = [cell.get("class") for cell in row]
        assert classes == [None, "number", "number", None, "number"]


def test_table_of_a_page_has_a_caption_scopes_and_a_name_for_screen_readers():
    html = parsed(Table('"a" & b', ("x", "y"), [(1, 2)]).html())
    assert html.find("div").get("aria-label") == html.find(".//caption").text == '"a" & b'
    assert [cell.get("scope") for cell in html.iter("th")] == ["col", "col", "row"]


def test_table_of_a_notebook_needs_no_style_sheet():
    html = Table("", ("x", "y"), [(1, 2)]).html(inline=True)
    assert "class=" not in html
    assert all(cell.get("style") for row in parsed(html).iter("tr") for cell in row)


def test_table_without_rows():
    for inline in (False, True):
        assert cells(Table("", ("a", "b"), []).html(inline=inline)) == [["a", "b"]]


@pytest.mark.parametrize(
    ("head", "rows"), [(("a", "b"), [(1, 2), (1,)]), (("a",), [(1, 2)]), (("a", "b"), [(1,)])]
)
def test_table_rejects_rows_of_other_lengths(head, rows):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        Table("", head, rows).html()


@given(texts, texts)
def test_table_shows_any_text_and_nothing_else(first, second):
    for inline in (False, True):
        html = Table(first, (first,), [(second,)]).html(inline=inline)
        found = Texts(html)
        assert found.tags <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
        assert first in found.found
        assert cells(html) == [[first], [second]]


# --- text, Markdown, and long tables -------------------------------------------------------------

LONG = Table("Layers", ("layer", "mean"), [(f"conv{i}", i / 4) for i in range(30)], what="layers")


def test_table_as_text_equals_a_table_by_hand():
    table = Table("numbers", ("name", "count"), [("a\n b", 1), ("long name", 12345)])
    assert table.text().splitlines() == [
        "numbers",
        "name        count",
        "a b             1",
        "long name  12,345",
    ]
    assert Table("", ("x",), []).text() == "x"


def test_table_as_markdown_equals_a_table_by_hand():
    table = Table("my_layers", ("|x|", "count"), [("blocks.0_b", 1), ("*", MISSING)])
    assert table.markdown().splitlines() == [
        "**my_layers**",
        "",
        r"| \|x\| | count |",
        "| :--- | ---: |",
        "| blocks.0_b | 1 |",
        r"| \* | – |",
    ]


@given(st.lists(st.tuples(texts, st.floats()), min_size=1, max_size=3))
def test_table_as_markdown_is_rendered_as_its_cells(rows):
    rendered = MarkdownIt("commonmark").enable("table").enable("strikethrough")
    html = rendered.render(Table("", ("name", "number"), rows).markdown())
    shown = Table("", ("name", "number"), [(" ".join(name.split()), x) for name, x in rows])
    found = [[" ".join(cell.split()) for cell in row] for row in cells(html)]
    assert found == cells(shown.html())


def test_long_table_shows_some_rows_and_unfolds_to_all():
    table = replace(LONG, shown=[0, 7, 29])
    short = ["conv0", "conv7", "conv29"]
    assert [row.split()[0] for row in table.text().splitlines()[2:5]] == short
    assert table.text().endswith("\n3 of 30 layers")
    assert [row.split()[1] for row in table.markdown().splitlines()[4:7]] == short
    assert table.markdown().endswith("|\n\n3 of 30 layers")
    for inline in (False, True):
        first, details = parsed(table.html(inline=inline))
        assert [row[0].text for row in first.iter("tr")] == ["layer", *short]
        assert details.tag == "details"
        assert details.get("open") is None
        assert details.find("summary").text == "3 of 30 layers; all:"
    # A notebook has the others as text, because each styled cell is long.
    assert details.find("pre").text == LONG.text()
    whole = parsed(table.html()).find("details").iter("tr")
    assert [row[0].text for row in whole] == ["layer", *(name for name, _ in LONG.rows)]


def test_table_that_shows_all_rows_has_nothing_to_unfold():
    for table in (LONG, replace(LONG, shown=range(30))):
        assert table.html() == LONG.html()
        assert table.text() == LONG.text()
        assert "details" not in table.html() + table.html(inline=True) + table.markdown()
