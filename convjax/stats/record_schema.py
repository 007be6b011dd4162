"""The schema of a record's file: types, shapes that agree, increasing steps and bin edges.

A complete .npz file may still not be a record, if it is another program's or was edited. All code
that reads records relies on these checks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from convjax.io.array_schema import Axis, Field, check_fields
from convjax.io.npz import Arrays
from convjax.stats.parameter_forms import LOG_BINS

# Axes by what they count. There are two kinds of rows: of steps, and of watched steps. The axis of
# the layers is empty, too, in `channels` without units and in `counted` without rows.
_ROWS, _LAYERS, _WATCHED = Axis("rows"), Axis("layers"), Axis("watched rows")
_KEPT, _SOME_LAYERS = _WATCHED._replace(optional=True), _LAYERS._replace(optional=True)
_BINS, _BYTES = Axis("bins"), Axis("bytes")
_PARAMETERS, _LOG_BINS = Axis("parameters"), Axis("bins of magnitudes")
_FIXED = {"bins of magnitudes": LOG_BINS + 2}

# Counts stay below this, so that arithmetic with them does not overflow.
_MOST = 1 << 62

_OF_ROWS = Field("f", (_ROWS,))
_OF_LAYERS = Field("f", (_WATCHED, _LAYERS))
_COUNTS = Field("i", (_KEPT, _LAYERS))

FIELDS = {
    "layers": Field("U", (_LAYERS,)),
    "sizes": Field("i", (_LAYERS,)),
    "steps": Field("i"),
    "first": Field("i", (_ROWS,)),
    **dict.fromkeys(("loss", "learning_rate", "momentum"), _OF_ROWS),
    **dict.fromkeys(("watched", "watched_count"), Field("i", (_WATCHED,))),
    **dict.fromkeys(("mean", "std", "near_zero", "abs_near_zero"), _OF_LAYERS),
    "hist_edges": Field("f", (Axis("bin edges"),)),
    "near_zero_threshold": Field("f"),
    "hist": Field("i", (_KEPT, _LAYERS, _BINS)),
    **dict.fromkeys(("under", "over"), _COUNTS),
    "channels": Field("i", (_SOME_LAYERS,)),
    "active": Field("u", (_KEPT, _BYTES)),
    "eval_loss": Field("f", (_KEPT,)),
    "counted": Field("i", (_KEPT, _SOME_LAYERS)),
}
_NORMS = Field("f", (_KEPT, _PARAMETERS))
_MAGNITUDES = Field("i", (_KEPT, _PARAMETERS, _LOG_BINS))
PARAMETER_FIELDS = {
    "names": Field("U", (_PARAMETERS,)),
    **dict.fromkeys(("sizes", "ndims"), Field("i", (_PARAMETERS,))),
    **dict.fromkeys(("watched", "watched_count"), Field("i", (_WATCHED,))),
    "weight_norm": _NORMS._replace(axes=(_WATCHED, _PARAMETERS)),
    **dict.fromkeys(("grad_norm", "update_norm"), _NORMS),
    **dict.fromkeys(("grad_hist", "update_hist"), _MAGNITUDES),
}


def check_shapes(arrays: Arrays, facts: Arrays, parameters: Arrays, kinds: Sequence[str]) -> None:
    """Checks types and shapes of all arrays of a record's file, whatever their content.

    Args:
      arrays: of the record, by the names of `convjax.stats.record.Record`'s fields.
      facts: by name; a file may lack them, as the next two.
      parameters: by the names of `ParameterRecord`'s fields.
      kinds: names of the arrays that say what the layers are.

    Raises:
      ValueError: if one is missing or has another type or shape; the message names it.
    """
    edges = arrays.get("hist_edges")
    bins = {} if edges is None or edges.ndim != 1 else {"bins": len(edges) - 1}
    check_fields(arrays, FIELDS, _FIXED | bins)
    known = {_WATCHED.what: len(arrays["watched"]), _LAYERS.what: len(arrays["layers"])}
    check_fields(facts, dict.fromkeys(facts, Field("f", (_WATCHED,))), known)
    if any(name in arrays for name in kinds):
        check_fields(arrays, dict.fromkeys(kinds, Field("U", (_LAYERS,))), known)
    if parameters:
        check_fields(parameters, PARAMETER_FIELDS, _FIXED)


def check_record_arrays(arrays: Arrays) -> None:
    """Checks the content of a record's arrays, whose shapes are right.

    Raises:
      ValueError: if they do not make a record; the message says why.
    """
    _check_edges(arrays)
    steps = int(arrays["steps"])
    first = arrays["first"]
    if steps < 0 or (len(first) > 0) != (steps > 0) or (steps and first[0] != 0):
        raise ValueError(f"first must begin with step 0 of {steps}, got {_start(first)}")
    _check_increasing("first", first, steps)
    _check_watched(arrays, steps)
    _check_sizes(arrays, steps)
    in_bins = sum(_totals(arrays, name) for name in ("hist", "under", "over"))
    if (in_bins > _values(arrays)).any():
        raise ValueError("hist, under and over count more values than the layers have")
    if min(arrays["channels"], default=0) < 0:
        raise ValueError(f"channels has a negative number, {min(arrays['channels'])}")
    # A unit is one bit.
    channels, (kept, found) = arrays["channels"], arrays["active"].shape
    bits = sum(map(int, channels))
    if kept and (len(channels) != len(arrays["layers"]) or found != -(-bits // 8)):
        raise ValueError(f"active has {found} bytes a row for {bits} channels")


def check_parameter_arrays(arrays: Arrays, steps: int) -> None:
    """Checks the content of the arrays of a record's parameters, whose shapes are right.

    Raises:
      ValueError: if they are not a record of parameters over this number of steps.
    """
    _check_increasing("watched", arrays["watched"], steps)
    counts = arrays["watched_count"]  # of steps times members
    if min(counts, default=1) < 1:
        raise ValueError(f"watched_count must be at least 1, got {_start(counts)}")
    _check_sizes(arrays, max(steps, sum(map(int, counts))))
    for name in ("grad_hist", "update_hist"):
        if _totals(arrays, name).sum() >= _MOST:
            raise ValueError(f"{name} counts more values than 64 bits hold")


def _check_edges(arrays: Arrays) -> None:
    edges, threshold = arrays["hist_edges"], float(arrays["near_zero_threshold"])
    if len(edges) < 2 or not np.isfinite(edges).all() or (edges[1:] <= edges[:-1]).any():
        raise ValueError(
            f"hist_edges must be two or more finite, increasing numbers, got {_start(edges)}"
        )
    if not 0 <= threshold < np.inf:
        raise ValueError(f"near_zero_threshold must be finite and at least 0, got {threshold}")


def _check_watched(arrays: Arrays, steps: int) -> None:
    _check_increasing("watched", arrays["watched"], steps)
    counts = arrays["watched_count"]
    if min(counts, default=1) < 1 or sum(map(int, counts)) > steps:
        raise ValueError(f"watched_count must be at least 1, with a sum of at most {steps}")


def _check_increasing(name: str, found: Num[np.ndarray, " R"], steps: int) -> None:
    if len(found) and (found[0] < 0 or found[-1] >= steps or (found[1:] <= found[:-1]).any()):
        raise ValueError(f"{name} must hold increasing steps below {steps}, got {_start(found)}")


def _check_sizes(arrays: Arrays, steps: int) -> None:
    sizes = arrays["sizes"]
    if min(sizes, default=1) < 1 or int(max(sizes, default=1)) * steps >= _MOST:
        raise ValueError(
            f"sizes must be at least 1 and, times {steps} steps, below 2^62, got {sizes}"
        )


def _values(arrays: Arrays) -> Any:
    """Returns the number of values of each row's statistics, (S, L)."""
    found = arrays["counted"]
    if not len(found):
        return arrays["watched_count"][:, None] * arrays["sizes"]
    if found.shape[1] != len(arrays["layers"]) or min(found.ravel(), default=1) < 1:
        raise ValueError(f"counted must be at least 1 for each layer, got {_start(found.ravel())}")
    if found.sum(dtype=np.float64) >= _MOST:
        raise ValueError("counted has more values than 64 bits hold")
    return found


def _totals(arrays: Arrays, name: str) -> Any:
    """Returns the sums over all bins, (S, L), in float64, where no sum overflows."""
    found = arrays[name]
    if not found.size:
        return np.zeros(1)
    if found.min() < 0:
        raise ValueError(f"{name} has a negative number, {found.min()}")
    return found.reshape(*found.shape[:2], -1).sum(-1, dtype=np.float64)


def _start(found: Num[np.ndarray, " R"]) -> str:
    """Returns the first five entries of an array as text."""
    return f"{', '.join(map(str, found[:5]))}{' …' if len(found) > 5 else ''}" or "none"
