"""The environment of a run: versions, device and processor."""

import os
import platform
from typing import Any

import jax

from convjax.parallel.agreement import versions


def environment() -> dict[str, Any]:
    """Returns the versions, devices and processor on which results depend.

    Examples:
      >>> from convjax.runs.environment import environment
      >>> sorted(environment())[:4]
      ['backend', 'convjax', 'cpu_count', 'devices']
    """
    return {
        "python": platform.python_version(),
        **versions(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "cpu_count": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
