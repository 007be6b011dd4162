from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.plots import new_figure
from convjax.report.notebook_html import paragraph, pictures, table, text, title

# XML cannot hold control characters, and no layer has them in its name.
words = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))


def parsed(html):
    """The elements of a fragment; a tag that is not closed is an error."""
    return ElementTree.fromstring(f"<div>{html}</div>")


def cells(html):
    """The texts of a table, row by row, its headings first."""
    return [["".join(cell.itertext()) for cell in row] for row in parsed(html).iter("tr")]


def sides(html):
    """On which side the cells of each row are."""
    rows = parsed(html).iter("tr")
    return [[cell.get("style").rpartition("text-align:")[2] for cell in row] for row in rows]


class Texts(HTMLParser):
    """What a browser would show, by another parser."""

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
    ("value", "expected"),
    [
        (None, ""),
        (1234567, "1,234,567"),
        (np.int32(-1234), "-1,234"),
        (0.123456, "0.1235"),
        (np.float32(0.5), "0.5"),
        (1e-7, "1e-07"),
        (np.nan, "NaN"),
        (-np.inf, "-inf"),
        (True, "True"),
        ("3.14159265", "3.14159265"),
    ],
)
def test_cells(value, expected):
    assert text(value) == expected


def test_numbers_are_to_the_right():
    html = table(("name", "count", "share", "mixed"), [("a", 1, None, 1), ("b", 20, 0.5, "?")])
    assert cells(html) == [
        ["name", "count", "share", "mixed"],
        ["a", "1", "", "1"],
        ["b", "20", "0.5", "?"],
    ]
    assert sides(html) == [["left", "right", "right", "left"]] * 3


def test_a_table_without_rows():
    assert cells(table(("a", "b"), [])) == [["a", "b"]]


def test_rows_of_other_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        table(("a", "b"), [(1, 2), (1,)])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        table(("a",), [(1, 2)])


@given(words, words)
def test_whatever_the_words_they_are_shown_and_nothing_else(first, second):
    for html in (table((first,), [(second,)]), title(first, second), paragraph(first)):
        parsed(html)
        found = Texts(html)
        assert found.tags <= {"div", "table", "thead", "tbody", "tr", "th", "td", "p", "strong"}
        assert first in found.found
    assert cells(table((first,), [(second,)])) == [[first], [second]]


def test_a_picture_has_words_for_those_who_do_not_see_it():
    html = pictures(('a "b" <c>', lambda: new_figure(1, 1)), ("d", lambda: new_figure(1, 1)))
    found = list(parsed(html).iter("img"))
    assert [image.get("alt") for image in found] == ['a "b" <c>', "d"]
    assert all(image.get("src").startswith("data:image/png;base64,iVBOR") for image in found)
    assert pictures() == ""


def test_without_matplotlib_the_way_to_get_it():
    def draw():
        raise ImportError('pictures need matplotlib: pip install "convjax[plots]"')

    html = pictures(("a", draw))
    assert Texts(html).found == 'pictures need matplotlib: pip install "convjax[plots]"'
    assert "<img" not in html


def test_other_errors_of_a_picture_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        pictures(("a", lambda: 1 / 0))
