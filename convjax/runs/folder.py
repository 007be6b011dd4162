"""The folder of a run: configuration, metrics, record, weights, checkpoints, predictions, plots.

  config.json      the configuration, with versions and device
  metrics.jsonl    one JSON object per evaluation, usually one per epoch
  record.npz       the record of all steps so far (`convjax.stats.record.Record`)
  checkpoints/     the states from which the run can resume (`convjax.runs.checkpoints.Checkpoints`)
  model.npz        the trained network's weights, at the end (`convjax.weights`)
  predictions.npz  its answers to the test images (`convjax.runs.predictions.Predictions`)
  plots/*.png      plots
  report.html      all of it on a page (`convjax.report.build`)

Every file is replaced as a whole, so that the folder can be read while the run continues
(`convjax.runs.load_run`).
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax import nnx

from convjax.io.atomic import atomic_write, partial_files, save_figure
from convjax.io.checksums import OF_ALL, with_checksums
from convjax.io.json_files import differences, json_text, write_json
from convjax.io.lock import FolderLock, LockedError
from convjax.nn.weights import save_weights
from convjax.runs.config import CONFIG, METRICS, RunError, check_config, config_content
from convjax.runs.environment import environment
from convjax.runs.predictions import Predictions
from convjax.stats.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunFolder:
    """The folder that one training writes into.

    A context manager: until its end, or `close`, no other process may write into the folder (see
    `convjax.io.lock`).

    Args:
      path: the folder, created where it does not exist. It must not hold a run unless `resume`.
      config: everything that is needed to repeat the run; written at once.
      resume: resume the run in the folder, which must have the same configuration.

    Attributes:
      config: the configuration, without the environment.
      resumed: whether a run is resumed.
      moved: the versions and devices that differ from those at the start of the run, in words.

    Raises:
      RunError: if the folder already holds a run, or with `resume` no run or one with another
        configuration; if another process writes into it, or it cannot be written. Later writing
        raises it if the folder was renamed or removed meanwhile.
      ValueError: if the configuration has an entry "checksums" or is larger than a mebibyte.

    Examples:
      >>> import tempfile
      >>> from convjax.runs import RunFolder, load_run
      >>> with tempfile.TemporaryDirectory() as path:
      ...     with RunFolder(path, {"lr": 0.06}) as folder:
      ...         folder.write_metrics([{"step": 5, "accuracy": 0.5}])
      ...     sorted(file.name for file in folder.path.iterdir())
      ['config.json', 'metrics.jsonl']
    """

    def __init__(
        self, path: str | os.PathLike[str], config: Mapping[str, Any], *, resume: bool = False
    ):
        self.path, self.config = Path(path), dict(config)
        self.resumed, self.moved = resume, list[str]()
        content = config_content(config)
        self._check_taken(resume)  # before anything is made
        self._lock = FolderLock(self.path)
        with ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(self._lock)
                self._check_taken(resume)  # again: another process may have written in between
                # Left by a process that was killed: none writes here now.
                for left in (*partial_files(self.path), *partial_files(self.path / "plots")):
                    left.unlink(missing_ok=True)
                if resume:
                    found = check_config(self.path, config, same_environment=False)
                    self.moved = differences(found.get("environment", {}), environment())
                else:
                    write_json(self.path / CONFIG, content)
            except LockedError as error:
                raise RunError(str(error)) from error
            except OSError as error:
                raise RunError(
                    f"the run folder {self.path} cannot be written: {error}. Choose another folder."
                ) from error
            self._held = held.pop_all()

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}{', resumed' * self.resumed})"

    def _check_taken(self, resume: bool) -> None:
        exists = (self.path / CONFIG).exists()
        if exists and not resume:
            raise RunError(f"{self.path} already holds a run. Choose another folder, or remove it.")
        if resume and not exists:
            raise RunError(
                f"{self.path} holds no run to resume: config.json is missing. Start without resume."
            )

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock, so that other processes can write into the folder."""
        self._held.close()

    def check(self) -> None:
        """Checks that the folder is where it was; every writing does so first.

        Raises:
          RunError: if it was renamed, removed or replaced.
        """
        try:
            self._lock.check()
        except LockedError as error:
            raise RunError(str(error)) from error

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replaces the metrics by those of all evaluations."""
        self.check()
        lines = [json_text(with_checksums(row, OF_ALL)) + "\n" for row in rows]
        with atomic_write(self.path / METRICS) as file:
            file.write("".join(lines).encode())

    def write_record(self, record: Record) -> None:
        """Replaces the record by that of all steps."""
        self.check()
        record.save(self.path / "record.npz")

    def write_model(self, model: nnx.Module) -> None:
        """Writes the weights of the trained network."""
        self.check()
        save_weights(self.path / "model.npz", model)

    def write_predictions(self, predictions: Predictions) -> None:
        """Writes the answers of the trained network to the test images."""
        self.check()
        predictions.save(self.path / "predictions.npz")

    def add_plot(self, name: str, figure: "Figure") -> None:
        """Saves a plot as plots/NAME.png."""
        self.check()
        save_figure(figure, self.path / "plots" / f"{name}.png")
