"""The hook for displays in notebooks: `convjax.report.notebook` registers them with it."""

import functools
from collections.abc import Callable
from typing import Any

_loaders: list[Callable[[], object]] = []


def before_first_display(load: Callable[[], object]) -> None:
    """Adds a function that registers displays; it is called once, when the first is asked for."""
    _loaders.append(load)


@functools.singledispatch
def html(value: Any) -> str | None:
    """Returns the HTML of a value for a notebook; None, for its `repr`, if none is registered."""
    return None


class Displayed:
    """Base class of types that a notebook displays with `html`."""

    def _repr_html_(self) -> str | None:
        while _loaders:
            _loaders[0]()  # stays in the list until it has returned, in case it is interrupted
            del _loaders[:1]
        return html(self)
