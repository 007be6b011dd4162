"""What a run's folder holds so far: unlike `convjax.runs.folder.load_run`, nothing but its
configuration has to be there."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from convjax.io.json_files import PlainError, read_object, read_objects
from convjax.runs.predictions import Predictions
from convjax.stats.record import Record
from convjax.runs.folder import RunError, not_null

# Where runs are looked for below a folder that is none, and how many are named:
# runs/DATE/runs/SETTING/seed-0 lies four folders below the first.
_DEPTH, _NAMED = 4, 5


@dataclass(frozen=True)
class Saved:
    """A run as it lies on the disk.

    Attributes:
      name: of the folder, for headings; never the whole path, which is nobody else's business.
      config: how the run was set up, without the environment.
      environment: versions and device, empty where they were not written.
      metrics: one mapping per evaluation; none for a run that is not so far.
      record, predictions: None where there is no such file.
    """

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    record: Record | None
    predictions: Predictions | None

    @classmethod
    def read(cls, path: str | os.PathLike[str], name: str | None = None) -> "Saved":
        """Reads what there is; nothing in the folder is executed.

        Args:
          name: for headings, instead of the folder's.

        Raises:
          RunError: if the folder holds no run, or one of its files is damaged. For a folder above
            runs the message names these.
          convjax.stats.record.RecordError, convjax.runs.predictions.PredictionsError: if those files are.
        """
        folder = Path(path)
        if not (folder / "config.json").exists():
            raise RunError(_no_run(folder))
        try:
            config = read_object(folder / "config.json")
            metrics = []
            if (folder / "metrics.jsonl").exists():
                metrics = [not_null(row) for row in read_objects(folder / "metrics.jsonl")]
        except PlainError as error:
            raise RunError(
                f"a file of the run {folder} is damaged: {error}. Take another copy of it, or "
                "train again."
            ) from error
        environment = config.pop("environment", {})
        record, predictions = folder / "record.npz", folder / "predictions.npz"
        return cls(
            name or names_of([folder])[0],
            config,
            environment if isinstance(environment, dict) else {},
            metrics,
            Record.load(record) if record.exists() else None,
            Predictions.load(predictions) if predictions.exists() else None,
        )


def names_of(folders: Sequence[Path]) -> list[str]:
    """Returns short names that tell folders apart: SETTING/seed-0, or more where these are alike.

    A folder that is given twice has the same name twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    length = 2
    while length < max(map(len, parts)) and len({p[-length:] for p in parts}) < len(set(parts)):
        length += 1
    return ["/".join(p[-length:]).lstrip("/") for p in parts]


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        missing = "is no folder" if folder.exists() else "does not exist"
        return f"{folder} {missing}. Give the folder of a run, which holds its config.json."
    below = [str(path) for path in islice(_below(folder), _NAMED + 1)]
    if not below:
        return (
            f"{folder} holds no run: there is no config.json in it or {_DEPTH} folders below. Give "
            "a folder that a training wrote, such as runs/DATE/runs/SETTING/seed-0."
        )
    more = " …" if len(below) > _NAMED else ""
    return (
        f"{folder} holds no run, but folders below it do. Give one or several of them: "
        f"{', '.join(below[:_NAMED])}{more}"
    )


def _below(folder: Path) -> Iterator[Path]:
    """Yields the folders of runs below a folder, the nearest first."""
    for depth in range(1, _DEPTH + 1):
        for config in sorted(folder.glob("/".join(["*"] * depth + ["config.json"]))):
            yield config.parent
