"""Checkpoints of a training, by Orbax: written beside the training, whole or not at all.

A checkpoint is a folder named by its step. It holds the state's arrays, the record of the steps so
far, and as JSON what else the training needs to go on; checksums tell a damaged one. Nothing in it
is executed.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from errno import EACCES, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convjax._checks import check_whole
from convjax.io.npz import Arrays
from convjax.stats.record import Record
from convjax.stats.record_file import RecordError
from convjax.train.persistence import Checkpoint
from convjax.train.tree_arrays import (
    CheckpointError,
    arrays_by_path,
    checksums,
    tree_from_arrays,
)

# Below every score, and a number, as JSON wants it.
NO_SCORE = -1e308

# A checkpoint, and one that Orbax has not finished; nobody else's copies beside them.
_OURS = re.compile(r"[0-9]+(\.orbax-checkpoint-tmp.*)?")

_RECORD = "record"  # the record's file, byte by byte; a path in a tree has a dot or brackets

# Errors of reading that say nothing of what is read: permissions, open files, memory, disk.
_OF_THE_MACHINE = {EACCES, EPERM, EMFILE, ENFILE, ENOMEM, ENOSPC}


class Checkpoints:
    """A folder of checkpoints, of which the newest and the best stay.

    A context manager: at its end what is still being written is waited for.

    Args:
      folder: made with the first checkpoint.
      keep: how many of the newest stay; beside them the one of the highest score.

    Raises:
      TypeError: if keep is no whole number.
      ValueError: if it is below 1.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2):
        self.folder, self.keep = Path(folder).resolve(), check_whole("keep", keep, 1)
        self._open: Any = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def save(
        self,
        step: int,
        state: Any,
        record: Record,
        progress: Mapping[str, Any],
        *,
        score: float | None = None,
    ) -> None:
        """Begins to write a checkpoint; returns once the state has been copied.

        Args:
          step: how many steps have been taken; more than in any checkpoint before.
          state: a tree of arrays. Its buffers may be given up afterwards.
          record: of all steps so far.
          progress: plain data for JSON.
          score: higher is better; None for a checkpoint that is not in the running.

        Raises:
          OSError: if this one or the one before cannot be written.
          ValueError: if there is one of this step or a later one.
          TypeError: if progress is no plain data.
        """
        import orbax.checkpoint as ocp

        self.wait()  # for the one before: only now it is known whether it is there
        newest = max(self.steps(), default=-1)
        if step <= newest:
            raise ValueError(
                f"step must be above {newest}, that of the newest checkpoint in {self.folder}, got "
                f"{step}."
            )
        arrays = arrays_by_path(jax.device_get(state))
        arrays[_RECORD] = np.frombuffer(record.to_bytes(), np.uint8)
        sums = checksums(arrays)
        content = {"checksums": sums, **progress}
        json.dumps(content)  # what is no plain data shows here, and not in Orbax's thread
        manager = self._manager()
        with _as_os_error(self.folder):
            manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays),
                    progress=ocp.args.JsonSave(content),
                ),
                metrics={"score": NO_SCORE if score is None else score},
                force=True,
            )

    def wait(self) -> None:
        """Returns when all checkpoints are on the disk.

        Raises:
          OSError: if one cannot be written.
        """
        if self._open is not None:
            with _as_os_error(self.folder):
                self._open.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the folder; the next call opens it again."""
        if self._open is not None:
            manager, self._open = self._open, None
            with _as_os_error(self.folder):
                manager.close()

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints that are whole, in order."""
        return sorted(int(path.name) for path in self._folders() if _is_whole(path))

    def clean(self) -> None:
        """Removes what a process that was killed left half-written or half-removed.

        Only for the one that writes here: to others the checkpoint that is being written looks just
        like that.

        Raises:
          CheckpointError: if what is newer than all others has lost its metadata. Orbax removes
            only what is older.
        """
        newest = max(self.steps(), default=-1)
        broken = [path for path in self._folders() if not _is_whole(path)]
        for path in broken:
            if path.name.isdecimal() and int(path.name) > newest:
                raise CheckpointError(
                    f"the checkpoint {path} is damaged: _CHECKPOINT_METADATA is missing. Remove "
                    f"{path}, and the run goes on from "
                    + (f"step {newest}." if newest >= 0 else "its beginning.")
                )
        for path in broken:
            shutil.rmtree(path)

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [p for p in self.folder.iterdir() if _OURS.fullmatch(p.name) and p.is_dir()]

    def restore(self, like: Any, step: int | None = None) -> Checkpoint | None:
        """Returns the newest checkpoint, or that of a step; None where there is none.

        Args:
          like: a tree of arrays as it was saved.

        Raises:
          CheckpointError: if it is damaged, or not of such a state, or there is none of this step.
          OSError: if it cannot be read for a reason that lies elsewhere.
        """
        steps = self.steps()
        if step is None:
            step = steps[-1] if steps else None
        if step is None:
            return None
        if step not in steps:
            raise CheckpointError(
                f"{self.folder} has no checkpoint of step {step}; it has "
                f"{', '.join(map(str, steps)) or 'none'}."
            )
        earlier = [other for other in steps if other < step]
        path = self.folder / str(step)
        way_out = f"Remove {path}, and the run goes on from " + (
            f"step {earlier[-1]}." if earlier else "its beginning."
        )
        try:
            arrays, progress = self._read(step)
            sums = progress.pop("checksums")
            if checksums(arrays) != sums:
                raise ValueError("a checksum differs")
            record = Record.from_bytes(arrays.pop(_RECORD).tobytes(), f"the record in {path}")
        except RecordError as error:
            raise CheckpointError(f"{error} {way_out}") from error
        # Orbax, TensorStore and JSON raise whatever they happen to meet in a damaged file.
        except Exception as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THE_MACHINE:
                raise  # the checkpoint may be whole: nobody should be told to remove it
            raise CheckpointError(
                f"the checkpoint {path} is damaged or cannot be read ({_first_line(error)}). "
                f"{way_out}"
            ) from error
        return Checkpoint(step, tree_from_arrays(like, arrays, path), record, progress)

    def best(self) -> int | None:
        """Returns the step of the checkpoint with the highest score, the last of several, or None
        where none has a score."""
        scores = {step: _score(self._manager().metrics(step)) for step in self.steps()}
        scored = [step for step, score in scores.items() if score > NO_SCORE]
        return max(scored, key=lambda step: (scores[step], step), default=None)

    def _read(self, step: int) -> tuple[Arrays, dict[str, Any]]:
        import orbax.checkpoint as ocp

        found = self._manager().restore(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore()
            ),
        )
        arrays = {name: np.asarray(array) for name, array in dict(found["arrays"]).items()}
        return arrays, dict(found["progress"])

    def _manager(self) -> Any:
        """Opens the folder."""
        if self._open is None:
            import orbax.checkpoint as ocp
            from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

            best = policies.BestN(get_metric_fn=_score, n=1)
            options = ocp.CheckpointManagerOptions(
                create=False,
                best_fn=_score,  # without which it does not write down the scores
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(self.keep), best]
                ),
                # Every process holds the same state: one writes it, and none waits for another.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=jax.process_index(),
                    active_processes={jax.process_index()},
                    barrier_sync_key_prefix="convjax",
                ),
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open = ocp.CheckpointManager(self.folder, options=options)
        return self._open


def _is_whole(path: Path) -> bool:
    # Orbax writes under another name, and the metadata last; removing takes the files one by one.
    return path.name.isdecimal() and (path / "_CHECKPOINT_METADATA").exists()


def _score(metrics: Mapping[str, float]) -> float:
    return metrics["score"]


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class _as_os_error:  # read as a phrase: with _as_os_error(folder)
    """Turns what Orbax raises where files cannot be written into an OSError that names them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            free = _free_bytes(self.folder)
            raise OSError(
                getattr(error, "errno", None) or 0,
                f"no checkpoint could be written ({_first_line(error)}; {free >> 20} MiB are free)",
                str(self.folder),
            ) from error


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
