"""The devices of a training."""

from contextlib import suppress
from typing import Any

import jax

from convjax import distributed


def show_cpu_devices(count: Any) -> None:
    """Makes JAX show `count` devices of all processes together, if the devices are CPUs.

    Must be called before anything initializes JAX's devices; later it does nothing. A count that is
    not a whole number is ignored: the configuration is checked elsewhere.
    """
    if isinstance(count, int) and count > distributed.process_count():
        with suppress(RuntimeError):  # the devices are already initialized
            jax.config.update("jax_num_cpu_devices", count // distributed.process_count())


def training_devices(count: int) -> list[jax.Device] | None:
    """Returns the devices to train on, None for JAX's default device.

    Args:
      count: number of devices of all processes together.

    Raises:
      ValueError: if there are fewer devices, or the processes would not use all of theirs.
    """
    processes = distributed.process_count()
    if count == processes == 1:
        return None
    if count % processes:
        raise ValueError(f"devices must be a multiple of the {processes} processes, got {count}.")
    devices = jax.devices()
    if count > len(devices) or (processes > 1 and count != len(devices)):
        rule = "at most" if processes == 1 else "all"
        raise ValueError(
            f"devices must be {rule} {len(devices)}, as many as JAX shows here, got {count}."
        )
    return devices[:count]
