"""Folders of finished trainings, which a resumed run reuses."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convjax.nn.weights import WeightsError
from convjax.runs.config import RunError, check_config
from convjax.runs.predictions import PredictionsError
from convjax.runs.run import Run, load_run
from convjax.stats.record_file import RecordError


class FinishedRuns:
    """The trainings that an earlier run has finished below `out`.

    Args:
      out: the folder for results.
      resume: whether to reuse them.

    Attributes:
      earlier_seconds: time of the reused trainings that a stopped run finished after its last
        claim.
    """

    def __init__(self, out: Path, resume: bool):
        self.resume = resume
        self.earlier_seconds = 0.0
        self._last_claim = _modified(out / "results.json")

    def finished(self, path: Path, config: Mapping[str, Any], last: str) -> Run | None:
        """Returns a training from its folder, or None; the folder of an unfinished one is removed.

        Args:
          path: the folder.
          config: the configuration that the training must have.
          last: name of the file that is written last.

        Raises:
          RunError: if the training has another configuration, or its files are damaged.
        """
        if not (self.resume and (path / "config.json").exists()):
            return None
        check_config(path, config)
        if not (path / last).exists():
            shutil.rmtree(path)
            return None
        with explain_damage(path):
            run = load_run(path)
        if _modified(path / last) > self._last_claim:
            spent = (row["seconds"] + row["compile_seconds"] for row in run.metrics)
            self.earlier_seconds += sum(spent)
        return run


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Adds the fix to the errors of damaged files of a finished training.

    Raises:
      RunError: if a file is damaged.
    """
    try:
        yield
    except (RunError, RecordError, PredictionsError, WeightsError) as error:
        raise RunError(f"{error} Remove {path}: --resume trains it again.") from error


def _modified(path: Path) -> float:
    """Returns the time at which a file was last written, 0 if it does not exist."""
    return path.stat().st_mtime if path.exists() else 0.0
