"""What a training needs to go on, and where it is kept: a run's folder and its checkpoints."""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from convjax.parallel import processes
from convjax.runs.checkpoints import Checkpoints, Saved
from convjax._checks import check_number, check_type
from convjax.stats.record_builder import Growing
from convjax.runs.tree_arrays import CheckpointError, filled, named
from convjax.train.plan import Plan
from convjax.stats.record import Record
from convjax.runs.folder import RunFolder, differences
from convjax.train.step import State

# The folder is brought up to date after an evaluation at most so often: writing, with all bytes on
# the disk before the old file goes, takes longer than a short epoch.
WRITE_SECONDS = 1.0

# fastai's average of the training loss, https://docs.fast.ai/learner.html#AvgSmoothLoss
SMOOTHING = 0.98


@dataclass
class Progress:
    """How far a training is, as plain data.

    Attributes:
      steps: taken so far.
      average: of the loss as fastai smooths it, before its start is corrected for.
      seconds, compile_seconds: spent since the last evaluation; compiling is not in the seconds.
      metrics: of each evaluation so far, see `Fitted`.
    """

    steps: int = 0
    average: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)

    def take(self, losses: npt.NDArray[Any]) -> None:
        """Counts steps with these losses."""
        for loss in losses.astype(np.float64).tolist():
            self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.steps += len(losses)

    def score(self, epoch: int, loss: float, accuracy: float) -> dict[str, Any]:
        """Adds an evaluation on the test images and returns its metrics."""
        row = {
            "epoch": epoch,
            "step": self.steps,
            # fastai's average goes on over the epochs; only the validation starts anew.
            "train_loss": self.average / (1 - SMOOTHING**self.steps),
            "valid_loss": float(loss),
            "accuracy": float(accuracy),
            "seconds": round(self.seconds, 3),
            "compile_seconds": round(self.compile_seconds, 3),
        }
        self.seconds = self.compile_seconds = 0.0
        self.metrics.append(row)
        return row

    @property
    def best(self) -> float:
        """The highest accuracy so far."""
        return max((row["accuracy"] for row in self.metrics), default=-math.inf)


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
        check_type("folder", self.folder, RunFolder, "convjax.runs.folder.RunFolder(path, config) is one.")
        if self.checkpoints is not None:
            check_type(
                "checkpoints", self.checkpoints, Checkpoints, "convjax.Checkpoints(path) is one."
            )
        if not check_number("seconds", self.seconds) >= 0:
            raise ValueError(f"seconds must be at least 0, got {self.seconds!r}.")


class Keeper:
    """Writes a training's folder and checkpoints, where there are any."""

    def __init__(self, keeping: Keeping | None, plan: Plan, growing: Growing, progress: Progress):
        self._plan = plan.config
        self._folder = None if keeping is None else keeping.folder
        self._checkpoints = None if keeping is None else keeping.checkpoints
        self._seconds = keeping.seconds if keeping else math.inf
        self._growing, self._progress = growing, progress
        self._last, self._written = time.monotonic(), -math.inf

    def restore(self, state: State) -> State:
        """Returns the state of the newest checkpoint, with the record and progress put back."""
        saved = None
        if self._checkpoints is not None:
            self._checkpoints.clean()
            saved = self._checkpoints.restore(state)
        # Process 0 alone reads the folder, which the others need not even see.
        text = "null" if saved is None else json.dumps(saved.progress)
        progress = json.loads(_from_primary(text.encode()))
        if progress is None:
            return state
        differing = differences(progress.pop("plan"), self._plan)
        if differing:
            raise CheckpointError(
                f"the newest checkpoint is of another plan, with {'; '.join(differing)}. Go on "
                "with the plan that it was made with, or begin in another folder."
            )
        for name, value in progress.items():
            setattr(self._progress, name, value)
        self._growing.add(_record_of(saved))
        self.write()  # the folder may have been ahead of the checkpoint
        arrays = processes.broadcast(named(saved.state if saved else state))
        return jax.tree.map(_like, state, filled(state, arrays, "of process 0"))

    def write(self, *, now: bool = True) -> None:
        """Brings the folder up to date, so that it can be read while the training goes on.

        Args:
          now: False leaves it as it is where it was written a moment ago.
        """
        if self._folder is None or not (now or time.monotonic() - self._written > WRITE_SECONDS):
            return
        self._folder.write_metrics(self._progress.metrics)
        self._folder.write_record(self._growing.record())
        self._written = time.monotonic()

    def due(self) -> bool:
        """Tells whether it is time for a checkpoint."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, state: State, score: float | None) -> None:
        """Begins to write a checkpoint."""
        if self._checkpoints is not None:
            steps = self._progress.steps
            progress = {"plan": self._plan, **asdict(self._progress)}
            self._checkpoints.save(steps, state, self._growing.whole(), progress, score=score)
            self._last = time.monotonic()

    def wait(self) -> None:
        """Returns when all is on the disk."""
        if self._checkpoints is not None:
            self._checkpoints.wait()


def _record_of(saved: Saved | None) -> Record:
    """Returns the record of process 0's checkpoint."""
    if saved is not None and processes.process_count() == 1:
        return saved.record
    return Record.from_bytes(_from_primary(b"" if saved is None else saved.record.to_bytes()))


def _from_primary(data: bytes) -> bytes:
    """Returns process 0's bytes in every process."""
    if processes.process_count() == 1:
        return data
    length = int(processes.broadcast(np.int64(len(data))))
    raw = np.frombuffer(data, np.uint8) if processes.is_primary() else np.zeros(length, np.uint8)
    return processes.broadcast(raw).tobytes()


def _like(old: jax.Array, new: Any) -> jax.Array:
    """Puts an array where another lies: no program is compiled for a place of its own."""
    if not old.committed:  # to JAX that is another place than the same device named
        return jax.device_put(new)
    if old.is_fully_addressable:
        return jax.device_put(new, old.sharding)
    return jax.make_array_from_callback(new.shape, old.sharding, lambda index: new[index])
