"""What is displayed: the hook for notebooks, and short texts of arrays for `repr`.

`convjax.report.notebook` registers its displays with the hook.
"""

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


def array_text(value: Any) -> str:
    """Returns a scalar's value, an array's dtype and shape, and the `repr` of anything else.

    Examples:
      >>> import numpy as np
      >>> from convjax._display import array_text
      >>> array_text(np.zeros((2, 3), np.uint8)), array_text(np.float32(0.5)), array_text(None)
      ('uint8[2,3]', '0.5', 'None')
    """
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        return repr(value)
    if value.shape == ():
        try:
            return f"{float(value):.6g}"
        except (TypeError, ValueError, RuntimeError):  # a tracer, a key, or a donated buffer
            pass
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def tree_text(tree: Any, what: str = "numbers") -> str:
    """Returns how many numbers a tree of arrays has, and in how many arrays.

    Examples:
      >>> import numpy as np
      >>> from convjax._display import tree_text
      >>> tree_text({"kernel": np.zeros((50, 40)), "bias": np.zeros(40)}, "parameters")
      '2,040 parameters in 2 arrays'
    """
    import jax  # not at the top: the displays of data work without it

    leaves = jax.tree.leaves(tree)
    numbers = sum(int(getattr(leaf, "size", 1)) for leaf in leaves)
    return f"{numbers:,} {what} in {len(leaves):,} array{'s' * (len(leaves) != 1)}"


class Displayed:
    """Base class of types that a notebook displays with `html`."""

    def _repr_html_(self) -> str | None:
        while _loaders:
            _loaders[0]()  # stays in the list until it has returned, in case it is interrupted
            del _loaders[:1]
        return html(self)
