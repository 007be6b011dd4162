"""What a training needs to go on, and how `fit` keeps it in a store."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import numpy.typing as npt

from convjax.io.json_files import differences
from convjax.parallel import distributed
from convjax.stats.record import Record
from convjax.stats.record_builder import RecordBuilder
from convjax.train.plan import Plan
from convjax.train.step import TrainState
from convjax.train.tree_arrays import CheckpointError, arrays_by_path, tree_from_arrays

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


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any
    record: Record
    progress: dict[str, Any]


class Store(Protocol):
    """Where a training is kept; `convjax.Keeping` says what each attribute does."""

    @property
    def folder(self) -> "Folder":
        """Takes metrics and record."""

    @property
    def checkpoints(self) -> "CheckpointStore | None":
        """Takes the newest state."""

    @property
    def seconds(self) -> float:
        """Between checkpoints."""


class Folder(Protocol):
    """What `fit` asks of a run's folder, such as `convjax.runs.RunFolder`."""

    resumed: bool

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replaces the metrics of all evaluations."""

    def write_record(self, record: Record) -> None:
        """Replaces the record."""


class CheckpointStore(Protocol):
    """What `fit` asks of a folder of checkpoints, such as `convjax.Checkpoints`."""

    def clean(self) -> None:
        """Removes what is half-written."""

    def restore(self, like: Any) -> Checkpoint | None:
        """Returns the newest checkpoint, None where there is none."""

    def save(
        self,
        step: int,
        state: Any,
        record: Record,
        progress: Mapping[str, Any],
        *,
        score: float | None,
    ) -> None:
        """Begins to write a checkpoint."""

    def wait(self) -> None:
        """Returns when all checkpoints are on the disk."""


class StoreWriter:
    """Writes a training's folder and checkpoints, where there are any."""

    def __init__(
        self, keeping: Store | None, plan: Plan, growing: RecordBuilder, progress: Progress
    ):
        self._plan = plan.config
        self._folder = None if keeping is None else keeping.folder
        self._checkpoints = None if keeping is None else keeping.checkpoints
        self._seconds = keeping.seconds if keeping else math.inf
        self._growing, self._progress = growing, progress
        self._last, self._written = time.monotonic(), -math.inf

    def restore(self, state: TrainState) -> TrainState:
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
        arrays = distributed.broadcast(arrays_by_path(saved.state if saved else state))
        return jax.tree.map(_like, state, tree_from_arrays(state, arrays, "of process 0"))

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

    def save(self, state: TrainState, score: float | None) -> None:
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


def _record_of(saved: Checkpoint | None) -> Record:
    """Returns the record of process 0's checkpoint."""
    if saved is not None and distributed.process_count() == 1:
        return saved.record
    return Record.from_bytes(_from_primary(b"" if saved is None else saved.record.to_bytes()))


def _from_primary(data: bytes) -> bytes:
    """Returns process 0's bytes in every process."""
    if distributed.process_count() == 1:
        return data
    length = int(distributed.broadcast(np.int64(len(data))))
    raw = np.frombuffer(data, np.uint8) if distributed.is_primary() else np.zeros(length, np.uint8)
    return distributed.broadcast(raw).tobytes()


def _like(old: jax.Array, new: Any) -> jax.Array:
    """Puts an array where another lies: no program is compiled for a place of its own."""
    if not old.committed:  # to JAX that is another place than the same device named
        return jax.device_put(new)
    if old.is_fully_addressable:
        return jax.device_put(new, old.sharding)
    return jax.make_array_from_callback(new.shape, old.sharding, lambda index: new[index])
