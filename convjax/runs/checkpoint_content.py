"""The parts of a checkpoint: arrays, and as JSON the rest with a checksum of every part.

Its JSON object has the checksums, the order of the kernels' axes, the step, the score, the run's
configuration, and the progress. In convjax 0.1 the progress lay beside the checksums, which were of
the arrays only, and there was nothing else.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convjax.io.checksums import checksum
from convjax.io.json_files import differences, json_text
from convjax.io.npz import Arrays
from convjax.nn.kernel_order import AXES_KEY, FILE_AXES, from_unnamed_order
from convjax.ops.layout import KERNEL_AXES
from convjax.stats.record import Record
from convjax.train.tree_arrays import MAX_NAMES, CheckpointError, arrays_by_path, checksums

_RECORD = "record"  # the record's file, byte by byte; a path in a tree has a dot or brackets
_CHECKSUMS, _PROGRESS = "checksums", "progress"


class DamageError(ValueError):
    """A part of a checkpoint differs from its checksum; the message names the part."""


class Content(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      step: number of steps taken; None in a checkpoint of convjax 0.1, as the next two.
      score: higher is better; None without an evaluation.
      config: of the run; None if it was saved without.
      record: the content of the record's file.
      progress: plain data.
      ordered: whether the kernels are in the order of files.
      arrays: of the state.
    """

    step: int | None
    score: float | None
    config: dict[str, Any] | None
    record: bytes
    progress: dict[str, Any]
    ordered: bool
    arrays: Arrays


def pack(
    step: int,
    score: float | None,
    config: Mapping[str, Any] | None,
    record: Record,
    progress: Mapping[str, Any],
    state: Any,
) -> tuple[Arrays, dict[str, Any]]:
    """Returns the arrays and the JSON object of a checkpoint.

    Raises:
      TypeError: if JSON cannot store progress or config.
    """
    arrays = arrays_by_path(state)
    arrays[_RECORD] = np.frombuffer(record.to_bytes(), np.uint8)
    json.dumps(progress)  # NaN stays NaN in it
    plain = None if config is None else json.loads(json_text(config))
    rest = {
        AXES_KEY: FILE_AXES,
        "step": step,
        "score": score,
        "config": plain,
        _PROGRESS: dict(progress),
    }
    return arrays, {_CHECKSUMS: {**checksums(arrays), _PROGRESS: checksum(rest)}, **rest}


def unpack(arrays: Arrays, found: Mapping[str, Any]) -> Content:
    """Returns the content of a checkpoint, given its arrays and its JSON object.

    Raises:
      DamageError: if a part differs from its checksum.
      Exception: of any kind if it is damaged otherwise.
    """
    rest = {name: value for name, value in found.items() if name != _CHECKSUMS}
    sums, now = found[_CHECKSUMS], checksums(arrays)
    first = _PROGRESS not in sums  # of convjax 0.1
    if not first:
        now[_PROGRESS] = checksum(rest)
    differing = sorted(n for n in sums.keys() | now.keys() if sums.get(n) != now.get(n))
    if differing:
        parts = [n if n in (_RECORD, _PROGRESS) else f"array {n:.80}" for n in differing]
        more = f" and {len(parts) - MAX_NAMES} more" if len(parts) > MAX_NAMES else ""
        raise DamageError(f"the checksum differs of its {', '.join(parts[:MAX_NAMES])}{more}")
    arrays = dict(arrays)
    record = arrays.pop(_RECORD).tobytes()
    ordered = rest.pop(AXES_KEY, None) is not None
    if first:
        return Content(None, None, None, record, rest, ordered, arrays)
    return Content(
        rest["step"], rest["score"], rest["config"], record, rest[_PROGRESS], ordered, arrays
    )


def check_same_config(path: Path, saved: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises CheckpointError if the configuration of a checkpoint differs from a run's."""
    if differing := differences(saved, config):
        raise CheckpointError(
            f"the checkpoint {path} is of a run with {'; '.join(differing)}: the configuration "
            "was changed after it was saved. Restore config.json from a copy, or configure the run "
            "as before."
        )


def of_no_order(path: Path, arrays: Arrays, like: Any) -> Arrays:
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
