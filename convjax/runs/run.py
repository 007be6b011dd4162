"""The reader of a run's folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from convjax._display import Displayed
from convjax.io.checksums import OF_ALL, without_checksums
from convjax.io.json_files import JsonError, null_to_nan, read_objects
from convjax.runs.config import CONFIG, METRICS, RunError, load_config
from convjax.runs.predictions import Predictions
from convjax.stats._frame import import_pandas
from convjax.stats.record import Record

if TYPE_CHECKING:
    import pandas as pd

# How many folders deep runs are searched below a folder without config.json, and how many of them
# the message lists.
_DEPTH, _LISTED = 4, 5


@dataclass(frozen=True, eq=False, repr=False)
class PartialRun(Displayed):
    """The files of a run that may not have reached its first evaluation.

    Attributes:
      config: the configuration, with the environment under "environment".
      metrics: one mapping per evaluation, in order.
      record: the record of all steps; None where it is not written yet.
      predictions: the answers to the test images; None where they are not written yet.
      environment: versions and device; empty where config.json does not have them.
    """

    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    record: Record | None
    predictions: Predictions | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    def to_frame(self) -> "pd.DataFrame":
        """Returns the metrics as a pandas DataFrame, one row per evaluation.

        `run.record.to_frame()` has the steps.

        Raises:
          ImportError: if pandas is not installed.
        """
        return import_pandas().DataFrame(self.metrics)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.metrics):,} evaluations, {self.record!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Run(PartialRun):
    """A run with at least one evaluation; the attributes are those of `PartialRun`."""

    record: Record


@overload
def load_run(path: str | os.PathLike[str], *, partial: Literal[False] = False) -> Run: ...
@overload
def load_run(path: str | os.PathLike[str], *, partial: Literal[True]) -> PartialRun: ...
def load_run(path: str | os.PathLike[str], *, partial: bool = False) -> PartialRun:
    """Reads a run's folder. Nothing in it is executed.

    Args:
      path: the folder.
      partial: accept a run before its first evaluation, which has no metrics and no record.

    Raises:
      RunError: if the folder holds no run, a file is missing, or config.json or metrics.jsonl is
        damaged or was changed. Where folders below hold runs, the message lists them.
      convjax.stats.RecordError: if record.npz is damaged.
      convjax.runs.predictions.PredictionsError: if predictions.npz is damaged.

    Examples:
      >>> import tempfile
      >>> from convjax.runs import RunFolder, load_run
      >>> with tempfile.TemporaryDirectory() as path:
      ...     with RunFolder(path + "/run", {"lr": 0.06}) as folder:
      ...         folder.write_metrics([{"step": 5, "accuracy": 0.5}])
      ...     run = load_run(path + "/run", partial=True)
      >>> run.config["lr"], run.metrics, run.record
      (0.06, [{'step': 5, 'accuracy': 0.5}], None)
    """
    folder = Path(path)
    metrics: list[dict[str, Any]] = []
    record = None
    try:
        config = load_config(folder / CONFIG) if folder.is_dir() else None
    except FileNotFoundError:
        config = None
    except JsonError as error:
        raise _damaged(folder, error) from error
    if config is None:
        raise RunError(_no_run(folder))
    try:
        rows = enumerate(read_objects(folder / METRICS), 1)
        metrics = [
            null_to_nan(without_checksums(row, OF_ALL, f"line {i} of {METRICS}")) for i, row in rows
        ]
    except FileNotFoundError as error:
        _check_partial(partial, error)
    except JsonError as error:
        raise _damaged(folder, error) from error
    try:
        record = Record.load(folder / "record.npz")
    except FileNotFoundError as error:
        _check_partial(partial, error)
    try:
        predictions = Predictions.load(folder / "predictions.npz")
    except FileNotFoundError:
        predictions = None
    environment = config.get("environment")
    rest = predictions, environment if isinstance(environment, dict) else {}
    if record is None or partial:
        return PartialRun(config, metrics, record, *rest)
    return Run(config, metrics, record, *rest)


def _check_partial(partial: bool, error: FileNotFoundError) -> None:
    if not partial:
        file = Path(error.filename)
        raise RunError(
            f"{file.parent} holds no complete epoch of a run: {file.name} is missing. Wait for the "
            "first evaluation, or train again."
        ) from error


def _damaged(folder: Path, error: JsonError) -> RunError:
    return RunError(
        f"a file of the run {folder} is damaged or cannot be read: {error}. Take another copy of "
        "it, or train again."
    )


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        return f"{folder} {problem}. Give the folder of a run, which holds its config.json."
    below = [str(path) for path in islice(_runs_below(folder), _LISTED + 1)]
    if not below:
        return (
            f"{folder} holds no run: there is no config.json in it or {_DEPTH} folders below. Give "
            "the folder that a training wrote, which holds its config.json."
        )
    more = " …" if len(below) > _LISTED else ""
    return (
        f"{folder} holds no run, but folders below it do. Give one or several of them: "
        f"{', '.join(below[:_LISTED])}{more}"
    )


def _runs_below(folder: Path) -> Iterator[Path]:
    """Yields the folders of runs below a folder, the nearest first."""
    for depth in range(1, _DEPTH + 1):
        for config in sorted(folder.glob("/".join(["*"] * depth + [CONFIG]))):
            yield config.parent
