"""The choice of the layers that a picture, a table or a page shows at once."""

import operator
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, SupportsIndex

import numpy as np

from convjax._checks import describe_value, near_match
from convjax.diagnosis._diagnose import Diagnosis, diagnose
from convjax.stats.record import Record

MAX_LAYERS = 12  # more lines or panels than this are hard to tell apart

# An index, a name or a pattern of names, or a list of these.
LayerChoice = SupportsIndex | str | Sequence[SupportsIndex | str]


def choose(
    record: Record,
    names: Sequence[str],
    layers: LayerChoice | None = None,
    diagnosis: Diagnosis | None = None,
) -> list[int]:
    """Returns the indices of the layers or parameters to show, in their order.

    Args:
      record: of the training.
      names: of the record's layers or parameters, or some of them.
      layers: which of them: a name, a case-sensitive pattern such as "blocks.*.conv", where "*"
        also crosses dots, an index into `names`, or a list of these. What matches "blocks.0" or
        lies below it, such as "blocks.0.conv", is chosen, unless a name is "blocks.0" itself. By
        default at most 12, evenly spaced, with the first and the last, and those that a finding
        names.
      diagnosis: of the record, for the default; by default that of `convjax.diagnose`.

    Raises:
      IndexError: for an index that is out of range.
      TypeError: if layers is of another type.
      ValueError: if a name or pattern matches none of the names, or the list is empty.

    Examples:
      >>> from convjax import Recorder
      >>> from convjax.plots.layer_choice import choose
      >>> recorder = Recorder()
      >>> recorder.add(2.0)
      >>> names = [f"layers[{i}].conv" for i in range(100)]
      >>> choose(recorder.record(), names)
      [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
      >>> choose(recorder.record(), names, ["layers[1]", "*5].conv", -1])
      [1, 5, 15, 25, 35, 45, 55, 65, 75, 85, 95, 99]
    """
    if layers is not None:
        each = [layers] if isinstance(layers, str) or not isinstance(layers, Sequence) else layers
        if not each:
            raise ValueError(
                "layers must choose at least one, got none. Leave it out, or pass one."
            )
        return sorted({i for one in each for i in _found(names, one)})
    if len(names) <= MAX_LAYERS:
        return list(range(len(names)))
    spread = np.linspace(0, len(names) - 1, MAX_LAYERS).round().astype(int).tolist()
    if diagnosis is None:
        diagnosis = diagnose(record)
    where = [f.where for f in (*diagnosis.findings, *diagnosis.consequences) if f.where]
    # A finding in a kernel is one in its layer, and the reverse.
    named = [i for i, name in enumerate(names) if any(_related(name, other) for other in where)]
    return sorted({*spread, *named})


def choose_parameters(
    record: Record,
    names: Sequence[str],
    layers: LayerChoice | None = None,
    diagnosis: Diagnosis | None = None,
) -> list[int]:
    """Returns the indices of the parameters of the chosen layers, where both are shown.

    Where the names of parameters do not begin with those of the layers, these are the parameters
    of the default.

    Args:
      record: of the training.
      names: of parameters.
      layers: of the record, or parameters where it has no layers, as for `choose`.
      diagnosis: as for `choose`.

    Raises:
      IndexError, TypeError, ValueError: as `choose`.
    """
    if layers is None or not record.layers:
        return choose(record, names, layers, diagnosis)
    chosen = [record.layers[i] for i in choose(record, record.layers, layers)]
    found = [i for i, name in enumerate(names) if any(_related(name, of) for of in chosen)]
    return found or choose(record, names, None, diagnosis)


def describe_choice(shown: int, total: int, what: str) -> str:
    """Returns how many are shown of how many.

    Examples:
      >>> from convjax.plots.layer_choice import describe_choice
      >>> describe_choice(12, 240, "layers")
      '12 of 240 layers'
    """
    return f"{shown:,} of {total:,} {what}"


def _found(names: Sequence[str], one: Any) -> list[int]:
    if isinstance(one, str):
        if one in names:
            return [names.index(one)]
        found = [i for i, name in enumerate(names) if _matches(name, one)]
        if not found:
            listed = ", ".join(names[:MAX_LAYERS]) + (" …" if len(names) > MAX_LAYERS else "")
            raise ValueError(
                f"layers must match one of {len(names):,} names, got {one!r}"
                f"{near_match(one, names)}. The names: {listed or 'none'}."
            )
        return found
    try:
        if isinstance(one, bool):
            raise TypeError
        index = operator.index(one)
    except TypeError:
        raise TypeError(
            "layers must be a name, a pattern, an index or a list of these, got "
            f'{describe_value(one)}. Pass for example "blocks.*" or [0, -1].'
        ) from None
    if not -len(names) <= index < len(names):
        raise IndexError(
            f"layers must be an index of {len(names):,} names, got {index}. Pass a smaller one, "
            "or a name."
        )
    return [index % len(names)]


def _matches(name: str, pattern: str) -> bool:
    # "[" may start a set of letters, or be part of a name such as "layers[3].conv".
    forms = (pattern, pattern.replace("[", "[[]"))
    return any(fnmatchcase(name, form) or fnmatchcase(name, form + ".*") for form in forms)


def _related(name: str, other: str) -> bool:
    return name == other or name.startswith(other + ".") or other.startswith(name + ".")
