"""Orbax's manager of a folder of checkpoints, and its errors as ours."""

import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax

# Below every score. It is finite, because JSON has no infinity.
NO_SCORE = -1e308


def open_manager(folder: Path, keep: int) -> Any:
    """Opens a folder, which is created if it does not exist.

    Args:
      folder: of the checkpoints.
      keep: how many of the newest are kept, besides the one with the highest score.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

    _ignore_closed_event_loops()
    best = policies.BestN(get_metric_fn=score_in, n=1)
    options = ocp.CheckpointManagerOptions(
        create=False,
        best_fn=score_in,  # without it the scores are not saved
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
        # Every process has the same state: one writes it, and none waits for another.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix="convjax",
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(folder, options=options)


def score_in(metrics: Mapping[str, float]) -> float:
    """Returns the score in Orbax's metrics of a checkpoint."""
    return metrics["score"]


def first_line(error: Exception) -> str:
    """Returns the type and the beginning of the message of an exception."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class as_os_error:
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
                f"no checkpoint could be written ({first_line(error)}; {free >> 20} MiB are free)",
                str(self.folder),
            ) from error


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


@cache
def _ignore_closed_event_loops() -> None:
    """Keeps threads of TensorStore from writing to stderr after an error that is raised anyway.

    Orbax waits for many reads or writes in one event loop, which the first error closes. The others
    end later, and find it closed.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = hook
