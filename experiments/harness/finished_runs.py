"""Folders of finished trainings, which a run that goes on takes as they are."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convjax.nn.weights import WeightsError
from convjax.runs.config import RunError, check_config
from convjax.runs.predictions import PredictionsError
from convjax.runs.run import Run, load_run
from convjax.stats.record import RecordError


class FinishedRuns:
    """What an earlier run left below `out`.

    Args:
      out: the folder for results.
      resume: take what is finished there.

    Attributes:
      earlier_seconds: what those trainings took that a stopped run finished after its last claim.
    """

    def __init__(self, out: Path, resume: bool):
        self.resume = resume
        self.earlier_seconds = 0.0
        self._last_claim = _modified(out / "results.json")

    def finished(self, path: Path, config: Mapping[str, Any], last: str) -> Run | None:
        """Returns what a training left in its folder, if that has the file that is written last.

        What an unfinished one left is removed.

        Raises:
          RunError: if it was set up otherwise, or its files are damaged.
        """
        if not (self.resume and (path / "config.json").exists()):
            return None
        check_config(path, config)
        if not (path / last).exists():
            shutil.rmtree(path)
            return None
        with damage_explained(path):
            run = load_run(path)
        if _modified(path / last) > self._last_claim:
            spent = (row["seconds"] + row["compile_seconds"] for row in run.metrics)
            self.earlier_seconds += sum(spent)
        return run


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Says with a damaged file of a finished training what to do."""
    try:
        yield
    except (RunError, RecordError, PredictionsError, WeightsError) as error:
        raise RunError(f"{error} Remove {path}, and --resume trains it again.") from error


def _modified(path: Path) -> float:
    """Returns when a file was last written, 0 where there is none."""
    return path.stat().st_mtime if path.exists() else 0.0
