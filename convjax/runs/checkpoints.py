"""Checkpoints of a training, by Orbax: written in the background, complete or not at all.

A checkpoint is a folder named by its step. It has the arrays of the state, the record of the steps
so far, and as JSON the rest that is needed to resume the training. Checksums detect a damaged one.
Nothing in it is executed.
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
from convjax.nn.kernel_order import AXES_KEY, FILE_AXES, from_unnamed_order
from convjax.ops.layout import KERNEL_AXES
from convjax.stats.record import Record
from convjax.stats.record_file import RecordError
from convjax.train.persistence import Checkpoint
from convjax.train.tree_arrays import (
    CheckpointError,
    arrays_by_path,
    checksums,
    tree_from_arrays,
)

# Below every score. It is finite, because JSON has no infinity.
NO_SCORE = -1e308

# A checkpoint, and one that Orbax has not finished. Other names are not ours.
_OURS = re.compile(r"[0-9]+(\.orbax-checkpoint-tmp.*)?")

_RECORD = "record"  # the record's file, byte by byte; a path in a tree has a dot or brackets

# Errors of reading that have another cause than the file: permissions, open files, memory, disk.
_OF_THE_MACHINE = {EACCES, EPERM, EMFILE, ENFILE, ENOMEM, ENOSPC}


class Checkpoints:
    """A folder of checkpoints, which keeps the newest and the best.

    A context manager: its end waits until all checkpoints are written.

    Args:
      folder: the folder, created with the first checkpoint.
      keep: how many of the newest are kept, besides the one with the highest score.

    Raises:
      TypeError: if keep is not a whole number.
      ValueError: if it is below 1.

    Examples:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> from convjax.runs import Checkpoints
      >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, keep=1) as checkpoints:
      ...     checkpoints.steps(), checkpoints.restore({"weights": jnp.zeros(2)})
      ([], None)
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
          step: how many steps have been taken; more than for any earlier checkpoint.
          state: a tree of arrays. Its buffers may be donated afterwards.
          record: of all steps so far.
          progress: data that JSON can store.
          score: higher is better; None for a checkpoint that cannot become the best.

        Raises:
          OSError: if this checkpoint or the one before cannot be written.
          ValueError: if there is a checkpoint of this step or a later one.
          TypeError: if JSON cannot store progress.
        """
        import orbax.checkpoint as ocp

        self.wait()  # for the one before, which may have failed
        newest = max(self.steps(), default=-1)
        if step <= newest:
            raise ValueError(
                f"step must be above {newest}, that of the newest checkpoint in {self.folder}, got "
                f"{step}. Use another folder."
            )
        arrays = arrays_by_path(jax.device_get(state))
        arrays[_RECORD] = np.frombuffer(record.to_bytes(), np.uint8)
        sums = checksums(arrays)
        content = {"checksums": sums, AXES_KEY: FILE_AXES, **progress}
        json.dumps(content)  # raises here and not in Orbax's thread
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
        """Waits, and releases the folder; the next call opens it again."""
        if self._open is not None:
            manager, self._open = self._open, None
            with _as_os_error(self.folder):
                manager.close()

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, in order."""
        return sorted(int(path.name) for path in self._folders() if _is_whole(path))

    def clean(self) -> None:
        """Removes checkpoints that a killed process has written or removed only in part.

        Only the process that writes here may call this: a checkpoint that is being written looks
        the same.

        Raises:
          CheckpointError: if the newest checkpoint lacks its metadata. Orbax removes only older
            ones, so that it is damaged.
        """
        newest = max(self.steps(), default=-1)
        broken = [path for path in self._folders() if not _is_whole(path)]
        for path in broken:
            if path.name.isdecimal() and int(path.name) > newest:
                raise CheckpointError(
                    f"the checkpoint {path} is damaged: _CHECKPOINT_METADATA is missing. Remove "
                    f"{path}, and the run resumes from "
                    + (f"step {newest}." if newest >= 0 else "its beginning.")
                )
        for path in broken:
            shutil.rmtree(path)

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [p for p in self.folder.iterdir() if _OURS.fullmatch(p.name) and p.is_dir()]

    def restore(self, like: Any, step: int | None = None) -> Checkpoint | None:
        """Returns a checkpoint, or None if there is none.

        Args:
          like: a state of the same structure, shapes and dtypes.
          step: the step of the checkpoint; None for the newest.

        Raises:
          CheckpointError: if it is damaged or of another state, or there is none of this step.
          OSError: if it cannot be read for another reason than its content.
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
        fix = f"Remove {path}, and the run resumes from " + (
            f"step {earlier[-1]}." if earlier else "its beginning."
        )
        try:
            arrays, progress = self._read(step)
            sums = progress.pop("checksums")
            if checksums(arrays) != sums:
                raise ValueError("a checksum differs")
            record = Record.from_bytes(arrays.pop(_RECORD).tobytes(), f"the record in {path}")
        except RecordError as error:
            raise CheckpointError(f"{error} {fix}") from error
        # Orbax, TensorStore and JSON raise exceptions of any kind for a damaged file.
        except Exception as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THE_MACHINE:
                raise  # the checkpoint may be intact, and must not be removed
            raise CheckpointError(
                f"the checkpoint {path} is damaged or cannot be read ({_first_line(error)}). {fix}"
            ) from error
        if progress.pop(AXES_KEY, None) is None:
            arrays = _of_no_order(path, arrays, like)
        return Checkpoint(step, tree_from_arrays(like, arrays, path), record, progress)

    def best(self) -> int | None:
        """Returns the step of the checkpoint with the highest score, or None without scores.

        Of equal scores the last counts.
        """
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
                best_fn=_score,  # without it the scores are not saved
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(self.keep), best]
                ),
                # Every process has the same state: one writes it, and none waits for another.
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=jax.process_index(),
                    active_processes={jax.process_index()},
                    barrier_sync_key_prefix="convjax",
                ),
            )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open = ocp.CheckpointManager(self.folder, options=options)
        return self._open


def _of_no_order(path: Path, arrays: Arrays, like: Any) -> Arrays:
    """Returns the arrays of a checkpoint of convjax 0.1, whose kernels have some layout's order."""
    shapes = {
        name: array.shape
        for name, array in arrays_by_path(like).items()
        if array.ndim == len(FILE_AXES) and "kernel" in name
    }
    found, layouts = from_unnamed_order(arrays, shapes, tuple(KERNEL_AXES))
    if len(layouts) > 1 and shapes:
        raise CheckpointError(
            f"the checkpoint {path} was written by convjax 0.1 and does not name the order of its "
            f"kernels' axes, whose shapes fit the layouts {', '.join(layouts)}. Resume the run "
            "with the version that began it, or begin it again."
        )
    return found


def _is_whole(path: Path) -> bool:
    # Orbax writes under another name, and the metadata last. It removes file by file.
    return path.name.isdecimal() and (path / "_CHECKPOINT_METADATA").exists()


def _score(metrics: Mapping[str, float]) -> float:
    return metrics["score"]


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class _as_os_error:
    """Turns the exceptions of Orbax where files cannot be written into an OSError."""

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
