"""convjax: see why convolutional networks train or fail to train, in JAX and Flax.

Rooms and names are loaded when they are first used; `__init__.pyi` lists them.
"""

import importlib
import threading
from typing import Any

import lazy_loader

from convjax._display import before_first_display

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_loading = threading.RLock()


def __getattr__(name: str) -> Any:
    # JAX's modules import each other in circles, which fails in several threads at once.
    with _loading:
        try:
            return _load(name)
        except AttributeError as error:
            if name.startswith("_"):
                raise
            names = importlib.import_module("convjax.learner.names").MODULE_NAMES
            if name not in names:
                raise
            raise AttributeError(f"{error}; fastai's {name} is here: {names[name]}.") from None


# The displays are in the top room, report, which the displayed types must not import.
before_first_display(lambda: importlib.import_module("convjax.report.notebook"))
