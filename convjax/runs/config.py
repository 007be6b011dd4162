"""The configuration of a run, config.json: reading it, and comparing it with another."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convjax.io.checksums import OF_EACH, with_checksums, without_checksums
from convjax.io.json_files import JsonError, differences, json_text, read_object
from convjax.runs.environment import environment

CONFIG, METRICS = "config.json", "metrics.jsonl"

# Bytes of the file: more than the names of ten thousand classes.
_LIMIT = 1 << 20


class RunError(ValueError):
    """A folder is not the folder of a run, is damaged, or cannot take a run."""


def config_content(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of config.json: a configuration, its environment, and checksums.

    Raises:
      ValueError: if it has an entry "checksums", or is too long to be read again.
    """
    content = with_checksums({**config, "environment": environment()}, OF_EACH)
    length = len(json_text(content, indent=2).encode())
    if length >= _LIMIT:
        raise ValueError(
            f"config must have less than {_LIMIT} bytes as JSON, got {length}. Leave out what can "
            "be read elsewhere."
        )
    return content


def load_config(file: Path) -> dict[str, Any]:
    """Returns the content of a config.json.

    Raises:
      FileNotFoundError: if it does not exist.
      JsonError: if it cannot be read, or was changed after it was written.
    """
    return without_checksums(read_object(file, limit=_LIMIT), OF_EACH, file.name)


def read_config(
    path: str | os.PathLike[str], fix: str = "Take the config.json of a run's folder."
) -> dict[str, Any]:
    """Returns the configuration of a run.

    Args:
      path: config.json, or the run's folder.
      fix: the last sentence of the error message.

    Raises:
      RunError: if the file cannot be read, is not a JSON object, or was changed after it was
        written; the message names what was changed.
    """
    file = Path(path)
    file = file / CONFIG if file.is_dir() else file
    try:
        return load_config(file)
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
