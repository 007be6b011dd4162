"""The devices of a training, and how they compute."""

import os
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


def set_numerics(precision: str, deterministic: bool) -> None:
    """Sets the precision of float32 products, and whether a GPU is to be deterministic.

    The second must be called before anything initializes JAX's devices.

    Args:
      precision: "default", or one of JAX's `jax_default_matmul_precision`.
      deterministic: whether operations of a GPU that may differ from run to run are excluded.

    References:
      https://docs.jax.dev/en/latest/gpu_performance_tips.html and
      https://openxla.org/xla/flags_guidance.
    """
    if deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    jax.config.update("jax_default_matmul_precision", None if precision == "default" else precision)


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
