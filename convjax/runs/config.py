"""The configuration of a run, config.json: reading it, and comparing it with another."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convjax.io.json_files import JsonError, differences, read_object
from convjax.runs.environment import environment

CONFIG = "config.json"


class RunError(ValueError):
    """A folder is not the folder of a run, is damaged, or cannot take a run."""


def read_config(
    path: str | os.PathLike[str], fix: str = "Take the config.json of a run's folder."
) -> dict[str, Any]:
    """Returns the configuration of a run.

    Args:
      path: config.json, or the run's folder.
      fix: the last sentence of the error message.

    Raises:
      RunError: if the file cannot be read or is not a JSON object.
    """
    file = Path(path)
    file = file / CONFIG if file.is_dir() else file
    try:
        return read_object(file)
    except (OSError, JsonError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"the configuration {file} cannot be read: {reason}. {fix}") from error


def check_config(
    folder: str | os.PathLike[str], config: Mapping[str, Any], *, same_environment: bool = True
) -> dict[str, Any]:
    """Checks that the run in a folder has a given configuration, and returns that of the folder.

    Args:
      folder: the run's folder.
      config: the expected configuration, without "environment".
      same_environment: whether versions and device must be those of this process, too.

    Raises:
      RunError: if the configurations differ; the message names the values.
    """
    found = read_config(Path(folder) / CONFIG, "Remove the folder to run it again.")
    own = found if same_environment else {**found, "environment": None}
    now = environment() if same_environment else None
    if differing := differences(own, {**config, "environment": now}):
        raise RunError(
            f"{folder} holds a run with {'; '.join(differing)}. Choose another folder, or "
            "configure the run as before."
        )
    return found
