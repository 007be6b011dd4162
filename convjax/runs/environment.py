"""The environment of a run: versions, device and processor."""

import os
import platform
from importlib import metadata
from typing import Any

import jax


def environment() -> dict[str, Any]:
    """Returns the versions, devices and processor on which results depend.

    Examples:
      >>> from convjax.runs.environment import environment
      >>> sorted(environment())[:4]
      ['backend', 'convjax', 'cpu_count', 'devices']
    """
    packages = ("convjax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "cpu_count": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # convjax imported from a source tree that is not installed
