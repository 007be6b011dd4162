"""Where `convjax.fit` keeps a training: a run's folder and its checkpoints."""

from dataclasses import dataclass

from convjax._checks import check_number, check_type
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.folder import RunFolder


@dataclass(frozen=True)
class Keeping:
    """Where a training is kept, so that it can go on.

    Attributes:
      folder: takes metrics and record, after an evaluation at most once a second.
      checkpoints: takes the newest state; with none there is no going on.
      seconds: between checkpoints. One is written besides at the end, when the training is stopped,
        and where an evaluation is the best so far.
    """

    folder: RunFolder
    checkpoints: Checkpoints | None = None
    seconds: float = 30.0

    def __post_init__(self) -> None:
        check_type(
            "folder", self.folder, RunFolder, "convjax.runs.folder.RunFolder(path, config) is one."
        )
        if self.checkpoints is not None:
            check_type(
                "checkpoints", self.checkpoints, Checkpoints, "convjax.Checkpoints(path) is one."
            )
        if not check_number("seconds", self.seconds) >= 0:
            raise ValueError(f"seconds must be at least 0, got {self.seconds!r}.")
