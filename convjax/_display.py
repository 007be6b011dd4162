"""The hook for displays in notebooks, at which `convjax.report.notebook` registers them."""

import functools
from collections.abc import Callable
from typing import Any


@functools.singledispatch
def html(value: Any) -> str | None:
    """Returns the HTML of a value for a notebook; None, for its `repr`, if none is registered."""
    return None


class Displayed:
    """Base class of types that a notebook displays with `html`."""

    # Registers the displays at the first call; set by `convjax`, which may import every room.
    load_displays: Callable[[], object] = staticmethod(lambda: None)

    def _repr_html_(self) -> str | None:
        Displayed.load_displays()
        return html(self)
