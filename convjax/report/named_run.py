"""A run under a short name, as reports show it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convjax.runs.run import PartialRun, load_run
from convjax.stats.record import Record


@dataclass(frozen=True, eq=False, repr=False)
class NamedRun(PartialRun):
    """A run, finished or not, with a name for headings; `config` is without the environment.

    Attributes:
      name: the last parts of the folder's path, not the whole: others may read the page.
    """

    name: str = field(kw_only=True)

    @classmethod
    def of(cls, record: Record) -> "NamedRun":
        """Returns the run of a record alone, whose name is its number of steps."""
        return cls({}, [], record, name=f"of {record.steps:,} step{'s' * (record.steps != 1)}")

    @classmethod
    def read(cls, path: str | os.PathLike[str], name: str | None = None) -> "NamedRun":
        """Reads the run in a folder.

        Args:
          path: the run's folder.
          name: for headings, instead of the folder's short name.

        Raises:
          ValueError: as `convjax.runs.load_run` with `partial=True`.
        """
        run = load_run(path, partial=True)
        config = {key: value for key, value in run.config.items() if key != "environment"}
        return cls(
            config,
            run.metrics,
            run.record,
            run.predictions,
            run.environment,
            name=name or short_names([Path(path)])[0],
        )


def short_names(folders: Sequence[Path]) -> list[str]:
    """Returns short names that tell folders apart: the last two parts, or more if these are alike.

    A folder that is given twice has the same name twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    length = 2
    while length < max(map(len, parts)) and len({p[-length:] for p in parts}) < len(set(parts)):
        length += 1
    return ["/".join(p[-length:]).lstrip("/") for p in parts]
