"""The agreement of the processes of `train` on their options and their data."""

from collections.abc import Mapping
from typing import Any

from convjax import distributed
from convjax.cli.train_config import TrainConfig
from convjax.cli.train_options import TrainCommand, TrainOptions
from convjax.data.catalog import DATASET_NAMES
from convjax.data.paths import expanded
from convjax.terminal.dataclass_options import option_name, option_names

# Each process may have its own: its number, and paths of its computer.
_OWN = "--process-id, --data-dir and --out"


def agree_on_options(
    config: TrainConfig, devices: object, command: TrainCommand, options: TrainOptions
) -> None:
    """Checks that all processes have the same options, before anything uses a device.

    Args:
      config: of this process.
      devices: the number that was asked for, None for all.
      command, options: of this process.

    Raises:
      ProcessError: in all of them, if an option differs; the message names it.
    """
    values: dict[str, Any] = {}
    for name in option_names(TrainConfig):
        holder = config if hasattr(config, name) else config.setting
        values[name] = getattr(holder, name)
    if config.data not in DATASET_NAMES:  # a folder may lie elsewhere on each computer
        values["data"] = f"{expanded(config.data).resolve().name}/"
    values |= {"norm": values["norm"] or "none", "devices": "all" if devices is None else devices}
    values |= {"resume": command.resume, "dry_run": command.dry_run, "stream": options.stream}
    distributed.agree(
        {option_name(name): value for name, value in values.items()},
        call="the comparison of the options",
        fix=f"Start all processes with the same options but {_OWN}.",
    )


def agree_on_data(full: Mapping[str, Any]) -> None:
    """Checks that all processes have the same images and labels.

    Args:
      full: the content of config.json.

    Raises:
      ProcessError: in all of them, if the images, labels or classes differ.
    """
    classes = ", ".join(full["classes"])
    distributed.agree(
        {
            "--data": f"{full['data']} with the sha256 {full['sha256']} and the classes {classes}",
            "the steps, mean and std of the training": (full["steps"], full["mean"], full["std"]),
        },
        call="the comparison of the data",
        fix="Give every process the same images and labels; --data-dir may be a copy of them.",
    )
