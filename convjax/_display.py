"""What notebooks show of an object: the hook, at which `convjax.report` registers the displays."""

import functools
from collections.abc import Callable
from typing import Any


@functools.singledispatch
def html(value: Any) -> str | None:
    """Returns what a notebook shows of a value; None, for its `repr`, where nothing is registered."""
    return None


class Displayed:
    """A type that notebooks show as `html` says."""

    # Registers the displays when one is first asked for; set by `convjax`, above all rooms.
    load_displays: Callable[[], object] = staticmethod(lambda: None)

    def _repr_html_(self) -> str | None:
        Displayed.load_displays()
        return html(self)
