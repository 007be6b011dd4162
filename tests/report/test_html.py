import base64
import sys

import jinja2
import pytest

from convjax.plots import new_figure
from convjax.report import html


def test_render_needs_no_network():
    page = html.render("convjax.report", "base.html")
    assert page.startswith("<!doctype html>")
    assert "http" not in page


def test_picture_is_a_data_url():
    figure = new_figure(1, 1)
    start, _, data = html.picture(figure).partition(",")
    assert start == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_render_rejects_an_unknown_template():
    with pytest.raises(jinja2.TemplateNotFound):
        html.render("convjax.report", "nothing.html")


def test_render_rejects_an_incomplete_context():
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        html.render("convjax.explorer", "explorer.html", about="", data={})


def test_render_without_jinja2(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r'pip install "convjax\[pages\]"'):
        html.render("convjax.report", "base.html")
