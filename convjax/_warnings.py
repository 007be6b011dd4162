"""Warnings that point at the user's line."""

import contextlib
import os
import sys
import warnings

# Frames of these stand between the user's line and ours: a step that is traced calls us through
# JAX. Python 3.12 has skip_file_prefixes for this.
_PACKAGES = ("convjax", "jax", "flax", "optax", "haiku", "equinox")


def warn_user(message: str) -> None:
    """Warns at the innermost line outside of this library and those that call it.

    Args:
      message: names what happens, says why, and what to write instead.
    """
    files = [getattr(sys.modules.get(name), "__file__", None) for name in _PACKAGES]
    inside = (*(os.path.dirname(file) + os.sep for file in files if file), contextlib.__file__)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)
