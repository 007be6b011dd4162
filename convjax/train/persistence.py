"""Saving a training while it runs, and restoring it: what `fit` asks of a store."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from convjax._display import tree_text
from convjax.io.json_files import differences
from convjax.parallel import distributed
from convjax.stats.record import Record
from convjax.stats.record_builder import RecordBuilder
from convjax.train.plan import Plan
from convjax.train.progress import Progress
from convjax.train.step import TrainState
from convjax.train.tree_arrays import CheckpointError, arrays_by_path, tree_from_arrays

# Metrics and record are written after an evaluation, at most once in this many seconds. To
# write all bytes to the disk before the old file is replaced takes longer than a short epoch.
WRITE_SECONDS = 1.0
CHECK_SECONDS = 1.0  # between two checks that the store is where it was


class Checkpoint(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      step: number of steps taken.
      state: a tree of arrays.
      record: of all steps so far.
      progress: plain data for JSON.
    """

    step: int
    state: Any
    record: Record
    progress: dict[str, Any]

    def __repr__(self) -> str:
        return f"Checkpoint(step {self.step:,}, {tree_text(self.state)}, {self.record!r})"


@runtime_checkable
class Store(Protocol):
    """Where `fit` saves a training; `convjax.Keeping` is one."""

    @property
    def resumed(self) -> bool:
        """Whether the store holds an earlier part of this training."""

    @property
    def seconds(self) -> float:
        """Seconds between checkpoints."""

    def check(self) -> None:
        """Raises an exception if what was saved is no longer where it was."""

    def write(self, metrics: Sequence[Mapping[str, Any]], record: Record) -> None:
        """Replaces the metrics of all evaluations and the record."""

    def restore(self, like: Any) -> Checkpoint | None:
        """Removes incomplete checkpoints and returns the newest, or None without one.

        Args:
          like: a state of the same structure.
        """

    def save(self, checkpoint: Checkpoint, *, score: float | None) -> None:
        """Begins to write a checkpoint.

        Args:
          checkpoint: the buffers of its state may be donated afterwards.
          score: higher is better; None without an evaluation.
        """

    def wait(self) -> None:
        """Returns when all checkpoints are on the disk."""


class StoreWriter:
    """Saves the progress and the record of a training in a store; without a store it does nothing.

    Args:
      store: where to save; None without one, as in all processes but the first.
      plan: of the training; a checkpoint of another plan is rejected.
      record: grows with the training.
      progress: grows with the training.
    """

    def __init__(self, store: Store | None, plan: Plan, record: RecordBuilder, progress: Progress):
        self._store, self._plan = store, plan.config
        self._seconds = math.inf if store is None else store.seconds
        self._record, self._progress = record, progress
        self._saved, self._written = time.monotonic(), -math.inf
        self._checked = self._saved

    def restore(self, state: TrainState) -> TrainState:
        """Returns the state of the newest checkpoint, and restores record and progress.

        Raises:
          CheckpointError: if the checkpoint is damaged, or of another training or plan.
        """
        saved = None if self._store is None else self._store.restore(state)
        # Only process 0 reads the store, which the others may not even be able to see.
        text = "null" if saved is None else json.dumps(saved.progress)
        progress = json.loads(_from_primary(text.encode()))
        if progress is None:
            return state
        differing = differences(progress.pop("plan"), self._plan)
        if differing:
            raise CheckpointError(
                f"the newest checkpoint is of another plan, with {'; '.join(differing)}. Resume "
                "with the plan that it was made with, or choose another folder."
            )
        for name, value in progress.items():
            setattr(self._progress, name, value)
        self._record.add(_record_of(saved))
        self.write()  # metrics and record may have been newer than the checkpoint
        arrays = distributed.broadcast(arrays_by_path(saved.state if saved else state))
        return jax.tree.map(_placed_like, state, tree_from_arrays(state, arrays, "of process 0"))

    def write(self, *, now: bool = True) -> None:
        """Writes metrics and record, so that they can be read while the training runs.

        Args:
          now: False skips the writing if the last was less than `WRITE_SECONDS` ago.
        """
        if self._store is None or not (now or time.monotonic() - self._written > WRITE_SECONDS):
            return
        self._store.write(self._progress.metrics, self._record.record())
        self._written = time.monotonic()

    def check(self) -> None:
        """Raises an exception if the store was moved or removed; asks it at most once a second."""
        if self._store is not None and time.monotonic() - self._checked > CHECK_SECONDS:
            self._store.check()
            self._checked = time.monotonic()

    def due(self) -> bool:
        """Returns whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= self._seconds

    def save(self, state: TrainState, score: float | None) -> None:
        """Begins to write a checkpoint; `score` is the accuracy, if it was just evaluated."""
        if self._store is not None:
            progress = {"plan": self._plan, **asdict(self._progress)}
            checkpoint = Checkpoint(self._progress.steps, state, self._record.whole(), progress)
            self._store.save(checkpoint, score=score)
            self._saved = time.monotonic()

    def wait(self) -> None:
        """Returns when all checkpoints are on the disk."""
        if self._store is not None:
            self._store.wait()


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


def _placed_like(old: jax.Array, new: Any) -> jax.Array:
    """Puts an array where another lies, so that no program is compiled for another placement."""
    if not old.committed:  # JAX distinguishes the default device from the same device by name
        return jax.device_put(new)
    if old.is_fully_addressable:
        return jax.device_put(new, old.sharding)
    return jax.make_array_from_callback(new.shape, old.sharding, lambda index: new[index])
