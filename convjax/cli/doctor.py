"""`convjax doctor`: what JAX sees, which extras are there, and what makes trainings slow."""

import os
import re
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import typer

# Extras that are for developers, and the one of all others.
NOT_SHOWN = {"all", "test", "dev", "docs", "experiments", "targets"}


def run_doctor() -> None:
    """Prints versions, devices, extras, and the settings that make trainings slow."""
    import jax

    from convjax.parallel.local_gpus import visible_gpus
    from convjax.runs.environment import environment

    found = environment()
    for name in ("python", "convjax", "jax", "jaxlib", "flax", "optax", "numpy", "platform"):
        typer.echo(f"{name:10} {found[name]}")
    kinds = ", ".join(f"{found['devices'].count(d)} × {d}" for d in dict.fromkeys(found["devices"]))
    typer.echo(f"{'devices':10} {kinds} ({found['backend']}); {found['cpu_count']} CPU cores\n")
    extras = installed_extras()
    for extra, missing in extras.items():
        lacks = f'lacks {", ".join(missing)}: pip install "convjax[{extra}]"'
        typer.echo(f"{extra:12} {lacks if missing else 'installed'}")
    config = jax.config.values
    gpus = visible_gpus({k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"})
    notes = slow_settings(config, found["backend"], gpus)
    typer.echo("\nslow:" if notes else "\nNothing that makes trainings slow was found.")
    for note in notes:
        typer.echo(f"- {note}")


def installed_extras() -> dict[str, list[str]]:
    """Returns, for each extra, the packages that it needs and that are not installed.

    Examples:
      >>> from convjax.cli.doctor import installed_extras
      >>> "plots" in installed_extras()
      True
    """
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires("convjax") or []:
        name, _, marker = requirement.partition(";")
        if (extra := re.search(r"extra == ['\"]([\w-]+)['\"]", marker)) is None:
            continue
        package = re.match(r"[\w.-]+", name)
        if extra[1] in NOT_SHOWN or package is None or package[0] == "convjax":
            continue
        missing = found.setdefault(extra[1], [])
        # Where a marker names platforms, the package may not be meant for this one.
        if not _installed(package[0]) and "platform" not in marker:
            missing.append(package[0])
    return found


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return find_spec(package.replace("-", "_")) is not None
    return True


# What a setting of JAX costs when it has the value.
_SLOW_CONFIG: Mapping[str, tuple[Any, str]] = {
    "jax_disable_jit": (True, "nothing is compiled: unset JAX_DISABLE_JIT"),
    "jax_debug_nans": (True, "every result is checked for NaN: unset JAX_DEBUG_NANS"),
    "jax_enable_x64": (True, "numbers are of 64 bits by default: unset JAX_ENABLE_X64"),
    "jax_disable_most_optimizations": (
        True,
        "programs are hardly optimised: unset JAX_DISABLE_MOST_OPTIMIZATIONS",
    ),
    "jax_default_matmul_precision": (
        "highest",
        "products are as exact as possible: unset JAX_DEFAULT_MATMUL_PRECISION",
    ),
}


def slow_settings(config: Mapping[str, Any], backend: str, gpus: int) -> list[str]:
    """Returns what makes trainings slow, a line each.

    Args:
      config: values of JAX's settings.
      backend: JAX's default one, such as "cpu".
      gpus: how many NVIDIA GPUs the computer has.

    Examples:
      >>> from convjax.cli.doctor import slow_settings
      >>> slow_settings({"jax_disable_jit": True}, "gpu", 1)
      ['nothing is compiled: unset JAX_DISABLE_JIT']
    """
    notes = [note for name, (value, note) in _SLOW_CONFIG.items() if config.get(name) == value]
    if backend == "cpu" and gpus:
        notes.append(
            f"JAX runs on the CPU though there are {gpus} NVIDIA GPUs: "
            'pip install "jax[cuda13]", or unset JAX_PLATFORMS'
        )
    return notes
