"""The table of pages and notebooks: its cells, its alignment and its escaping."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
