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
from contextlib import nullcontext, suppress
from errno import EACCES, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC, EPERM
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convjax._checks import check_whole
from convjax.io.lock import leads_to
from convjax.io.npz import Arrays
from convjax.runs.checkpoint_content import (
    DamageError,
    check_same_config,
    of_no_order,
    pack,
    unpack,
)
from convjax.runs.orbax_manager import NO_SCORE, as_os_error, first_line, open_manager, score_in
from convjax.stats.record import Record
from convjax.stats.record_file import RecordError
from convjax.train.persistence import Checkpoint
from convjax.train.tree_arrays import CheckpointError, tree_from_arrays

# A checkpoint, and one that Orbax has not finished. Other names are not ours.
_OURS = re.compile(r"[0-9]+(\.orbax-checkpoint-tmp.*)?")

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
        self._found: os.stat_result | None = None  # of the open folder

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        # An error that ends the block says more than one of a checkpoint after it.
        with suppress(OSError) if kind is not None else nullcontext():
            self.close()

    def save(
        self,
        step: int,
        state: Any,
        record: Record,
        progress: Mapping[str, Any],
        *,
        score: float | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Begins to write a checkpoint; returns once the state has been copied.

        Args:
          step: how many steps have been taken; more than for any earlier checkpoint.
          state: a tree of arrays. Its buffers may be donated afterwards.
          record: of all steps so far.
          progress: data that JSON can store.
          score: higher is better; None for a checkpoint that cannot become the best.
          config: of the run, with which `restore` compares; data that JSON can store.

        Raises:
          OSError: if this checkpoint or the one before cannot be written.
          ValueError: if there is a checkpoint of this step or a later one.
          TypeError: if JSON cannot store progress or config.
        """
        import orbax.checkpoint as ocp

        self.wait()  # for the one before, which may have failed
        if self._open is not None and not leads_to(self.folder, self._found):
            # Orbax would make it again, without the earlier ones.
            problem = "the folder of the checkpoints was renamed or removed after it was opened"
            raise OSError(ENOENT, problem, str(self.folder))
        newest = max(self.steps(), default=-1)
        if step <= newest:
            raise ValueError(
                f"step must be above {newest}, that of the newest checkpoint in {self.folder}, got "
                f"{step}. Use another folder."
            )
        arrays, content = pack(step, score, config, record, progress, jax.device_get(state))
        manager = self._manager()
        with as_os_error(self.folder):
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
            with as_os_error(self.folder):
                self._open.wait_until_finished()

    def close(self) -> None:
        """Waits, and releases the folder; the next call opens it again."""
        if self._open is not None:
            manager, self._open = self._open, None
            with as_os_error(self.folder):
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
                    f"the checkpoint {path} is damaged: _CHECKPOINT_METADATA is missing. "
                    f"{self._fix(int(path.name))}"
                )
        for path in broken:
            shutil.rmtree(path)

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [p for p in self.folder.iterdir() if _OURS.fullmatch(p.name) and p.is_dir()]

    def restore(
        self, like: Any, step: int | None = None, *, config: Mapping[str, Any] | None = None
    ) -> Checkpoint | None:
        """Returns a checkpoint, or None if there is none.

        Args:
          like: a state of the same structure, shapes and dtypes.
          step: the step of the checkpoint; None for the newest.
          config: of the run; None compares nothing, and so does a checkpoint saved without one.

        Raises:
          CheckpointError: if it is damaged or of another state or configuration, or there is none
            of this step. The message names the part, or the values.
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
        path = self.folder / str(step)
        fix = self._fix(step)
        try:
            content = unpack(*self._read(step))
            record = Record.from_bytes(content.record, f"the record in {path}")
        except RecordError as error:
            raise CheckpointError(f"{error} {fix}") from error
        except DamageError as error:
            raise CheckpointError(f"the checkpoint {path} is damaged: {error}. {fix}") from error
        # Orbax, TensorStore and JSON raise exceptions of any kind for a damaged file.
        except Exception as error:
            if isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THE_MACHINE:
                raise  # the checkpoint may be intact, and must not be removed
            raise CheckpointError(
                f"the checkpoint {path} is damaged or cannot be read ({first_line(error)}). {fix}"
            ) from error
        if content.step not in (None, step):
            raise CheckpointError(
                f"the checkpoint {path} was renamed: it is of step {content.step}. Rename it back."
            )
        if config is not None and content.config is not None:
            check_same_config(path, content.config, config)
        arrays = content.arrays if content.ordered else of_no_order(path, content.arrays, like)
        state = tree_from_arrays(like, arrays, path)
        return Checkpoint(step, state, record, content.progress)

    def best(self) -> int | None:
        """Returns the step of the checkpoint with the highest score, or None without scores.

        Of equal scores the last counts.
        """
        scores = {step: score_in(self._manager().metrics(step)) for step in self.steps()}
        scored = [step for step, score in scores.items() if score > NO_SCORE]
        return max(scored, key=lambda step: (scores[step], step), default=None)

    def _fix(self, step: int) -> str:
        """Returns what to do about a damaged checkpoint."""
        earlier = [other for other in self.steps() if other < step]
        return f"Remove {self.folder / str(step)}, and the run resumes from " + (
            f"step {earlier[-1]}." if earlier else "its beginning."
        )

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

    def _check_score(self, manager: Any, step: int) -> None:
        """Raises CheckpointError if Orbax's file of the score says something else than ours."""
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        try:
            saved = manager.restore(step, args=args)["progress"]["score"]
        except (
            Exception
        ):  # of any kind, and in checkpoints of convjax 0.1; `restore` reads it again
            return
        if (now := score_in(manager.metrics(step))) != (NO_SCORE if saved is None else saved):
            raise self._other_score(step, f"its score, {saved}, differs from that, {now}, in")

    def _check_metrics(self, step: int) -> None:
        """Raises CheckpointError if the file that Orbax reads first has no score."""
        try:
            score_in(json.loads((self.folder / str(step) / "metrics" / "metrics").read_bytes()))
        except FileNotFoundError:  # of Orbax's own, or in another version of it
            return
        except (ValueError, KeyError, TypeError) as error:
            raise self._other_score(step, f"there is no score ({first_line(error)}) in") from error

    def _other_score(self, step: int, problem: str) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint {self.folder / str(step)} is damaged: {problem} its metrics. "
            f"{self._fix(step)}"
        )

    def _manager(self) -> Any:
        """Opens the folder.

        Raises:
          CheckpointError: if the score of a checkpoint was changed, by which the best is kept.
        """
        if self._open is None:
            for step in self.steps():
                self._check_metrics(step)
            manager = open_manager(self.folder, self.keep)
            for step in self.steps():
                self._check_score(manager, step)
            self._open, self._found = manager, os.stat(self.folder)
        return self._open


def _is_whole(path: Path) -> bool:
    # Orbax writes under another name, and the metadata last. It removes file by file.
    return path.name.isdecimal() and (path / "_CHECKPOINT_METADATA").exists()
