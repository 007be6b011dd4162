"""The hook for displays: what registers them is called at the first one, until it succeeds."""

import jax
import jax.numpy as jnp
import numpy as np
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


def test_array_text_of_scalars_arrays_and_others():
    assert _display.array_text(jnp.float32(0.1)) == "0.1"
    assert _display.array_text(np.int64(1234567)) == "1.23457e+06"
    assert _display.array_text(jnp.float32(jnp.nan)) == "nan"
    assert _display.array_text(jnp.zeros((2, 0))) == "float32[2,0]"
    assert _display.array_text(jax.random.key(0)) == "key<fry>[]"
    assert _display.array_text([1, 2]) == "[1, 2]"


def test_tree_text_counts_numbers_and_arrays():
    tree = {"a": np.zeros((30, 40)), "b": [jnp.ones(5), None], "c": 2.0}
    assert _display.tree_text(tree) == "1,206 numbers in 3 arrays"
    assert _display.tree_text(np.zeros(3), "weights") == "3 weights in 1 array"
    assert _display.tree_text(()) == "0 numbers in 0 arrays"
