"""The persistence of a training of `convjax.fit`: a run's folder and its checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convjax._checks import check_number, check_type
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.folder import RunFolder
from convjax.stats.record import Record
from convjax.train.persistence import Checkpoint


@dataclass(frozen=True)
class Keeping:
    """The folder and the checkpoints of a training, from which it can be resumed.

    Attributes:
      folder: for metrics and record, written after an evaluation at most once a second.
      checkpoints: for the state; without them the training cannot be resumed.
      seconds: the time between checkpoints. Others are written at the end, when the training is
        stopped, and after the best evaluation so far.

    Examples:
      >>> import tempfile
      >>> import convjax
      >>> from convjax.runs import RunFolder
      >>> with tempfile.TemporaryDirectory() as path, RunFolder(path, {"lr": 0.06}) as folder:
      ...     keeping = convjax.Keeping(folder, convjax.Checkpoints(path + "/checkpoints"))
      >>> keeping.resumed, keeping.seconds
      (False, 30.0)
    """

    folder: RunFolder
    checkpoints: Checkpoints | None = None
    seconds: float = 30.0

    def __post_init__(self) -> None:
        check_type("folder", self.folder, RunFolder, "convjax.runs.RunFolder(path, config) is one.")
        if self.checkpoints is not None:
            check_type(
                "checkpoints", self.checkpoints, Checkpoints, "convjax.Checkpoints(path) is one."
            )
        if not check_number("seconds", self.seconds) >= 0:
            raise ValueError(
                f"seconds must be at least 0, got {self.seconds!r}. 30 is the default."
            )

    @property
    def resumed(self) -> bool:
        """Whether the folder held an earlier part of this training."""
        return self.folder.resumed

    def check(self) -> None:
        """Raises RunError if the folder was renamed, removed or replaced during the training."""
        self.folder.check()

    def write(self, metrics: Sequence[Mapping[str, Any]], record: Record) -> None:
        """Replaces the metrics of all evaluations and the record in the folder."""
        self.folder.write_metrics(metrics)
        self.folder.write_record(record)

    def restore(self, like: Any) -> Checkpoint | None:
        """Removes incomplete checkpoints and returns the newest, or None without one.

        Args:
          like: a state of the same structure.

        Raises:
          CheckpointError: if it is damaged, or of another training or configuration.
        """
        if self.checkpoints is None:
            return None
        self.checkpoints.clean()
        return self.checkpoints.restore(like, config=self.folder.config)

    def save(self, checkpoint: Checkpoint, *, score: float | None) -> None:
        """Begins to write a checkpoint, see `Checkpoints.save`."""
        if self.checkpoints is not None:
            self.folder.check()  # Orbax would make a folder of the old name
            self.checkpoints.save(*checkpoint, score=score, config=self.folder.config)

    def wait(self) -> None:
        """Returns when all checkpoints are on the disk."""
        if self.checkpoints is not None:
            self.checkpoints.wait()
