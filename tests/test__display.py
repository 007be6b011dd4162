"""The hook for displays: what registers them is called at the first one, until it succeeds."""

import pytest

from convjax import _display


class Shown(_display.Displayed):
    pass


def test_displays_are_loaded_once_and_again_after_an_interrupt(monkeypatch):
    calls = []

    def load():
        calls.append(len(calls))
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(_display, "_loaders", [])
    _display.before_first_display(load)
    with pytest.raises(KeyboardInterrupt):
        Shown()._repr_html_()
    assert Shown()._repr_html_() is None
    assert Shown()._repr_html_() is None
    assert calls == [0, 1]
