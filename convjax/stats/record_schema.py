"""What the arrays of a record's file must be to make a record: types, shapes that agree, steps.

A file may be whole and yet hold no record: somebody else's, or one that was edited. All that reads
records relies on what is checked here.
"""

from typing import Any

import numpy as np

from convjax.io.array_schema import Axis, Field, check_fields
from convjax.io.npz import Arrays
from convjax.stats.activations import HIST_BINS
from convjax.stats.parameters import LOG_BINS

# Axes by what they count. Rows of two kinds: of steps, and of watched steps.
_ROWS, _LAYERS, _WATCHED = Axis("rows"), Axis("layers"), Axis("watched rows")
_KEPT = _WATCHED._replace(optional=True)
_BINS, _BYTES = Axis("bins"), Axis("bytes")
_PARAMETERS, _LOG_BINS = Axis("parameters"), Axis("bins of magnitudes")
_FIXED = {"bins": HIST_BINS, "bins of magnitudes": LOG_BINS + 2}

# Counts stay below this, so that no arithmetic with them overflows.
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
    "hist": Field("i", (_KEPT, _LAYERS, _BINS)),
    **dict.fromkeys(("under", "over"), _COUNTS),
    "channels": Field("i", (_LAYERS._replace(optional=True),)),
    "active": Field("u", (_KEPT, _BYTES)),
    "eval_loss": Field("f", (_KEPT,)),
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


def check_record_arrays(arrays: Arrays) -> None:
    """Checks the arrays of a record, by the names of `convjax.stats.record.Record`'s fields.

    Raises:
      ValueError: if they make no record; the message says why.
    """
    check_fields(arrays, FIELDS, _FIXED)
    steps = int(arrays["steps"])
    first = arrays["first"]
    if steps < 0 or (len(first) > 0) != (steps > 0) or (steps and first[0] != 0):
        raise ValueError(f"first must begin with step 0 of {steps}, got {_start(first)}")
    _check_increasing("first", first, steps)
    _check_watched(arrays, steps)
    _check_sizes(arrays, steps)
    counted = sum(_totals(arrays, name) for name in ("hist", "under", "over"))
    if (counted > arrays["watched_count"][:, None] * arrays["sizes"]).any():
        raise ValueError("hist, under and over count more values than there are")
    if min(arrays["channels"], default=0) < 0:
        raise ValueError(f"channels holds a negative number, {min(arrays['channels'])}")
    # Units are one bit each.
    channels, (kept, found) = arrays["channels"], arrays["active"].shape
    bits = sum(map(int, channels))
    if kept and (len(channels) != len(arrays["layers"]) or found != -(-bits // 8)):
        raise ValueError(f"active has {found} bytes a row for {bits} channels")


def check_parameter_arrays(arrays: Arrays, steps: int) -> None:
    """Checks the arrays of a record's parameters, by the names of `ParameterRecord`'s fields.

    Raises:
      ValueError: if they make no record of the parameters of so many steps.
    """
    check_fields(arrays, PARAMETER_FIELDS, _FIXED)
    _check_watched(arrays, steps)
    _check_sizes(arrays, steps)
    for name in ("grad_hist", "update_hist"):
        if _totals(arrays, name).sum() >= _MOST:
            raise ValueError(f"{name} counts more values than 64 bits hold")


def _check_watched(arrays: Arrays, steps: int) -> None:
    _check_increasing("watched", arrays["watched"], steps)
    counts = arrays["watched_count"]
    if min(counts, default=1) < 1 or sum(map(int, counts)) > steps:
        raise ValueError(f"watched_count must be at least 1, and {steps} in all at most")


def _check_increasing(name: str, found: Any, steps: int) -> None:
    if len(found) and (found[0] < 0 or found[-1] >= steps or (found[1:] <= found[:-1]).any()):
        raise ValueError(f"{name} must hold increasing steps below {steps}, got {_start(found)}")


def _check_sizes(arrays: Arrays, steps: int) -> None:
    sizes = arrays["sizes"]
    if min(sizes, default=1) < 1 or int(max(sizes, default=1)) * steps >= _MOST:
        raise ValueError(f"sizes must be at least 1, and with {steps} steps below 2^62, {sizes}")


def _totals(arrays: Arrays, name: str) -> Any:
    """Returns the sums over all bins, as real numbers, which sums of anything fit: (S, L)."""
    found = arrays[name]
    if not found.size:
        return np.zeros(1)
    if found.min() < 0:
        raise ValueError(f"{name} holds a negative number, {found.min()}")
    return found.reshape(*found.shape[:2], -1).sum(-1, dtype=np.float64)


def _start(found: Any) -> str:
    return f"{', '.join(map(str, found[:5]))}{' …' if len(found) > 5 else ''}" or "no row"
